"""The architectures of the transformers library in sizes that run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

VOCABULARY = 100
SEQUENCE = 12
WIDTH = 48

MAKERS: dict[str, Callable[[], tuple[Any, ...]]] = {}

# One spelling of size options is shared by the BERT and ViT families, another by the decoders with grouped queries.
ENCODER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH}
VISION = {**ENCODER, "image_size": 32, "patch_size": 8}
TEXT = {**ENCODER, "vocab_size": VOCABULARY}
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {
    **TEXT,
    **SPECIAL_TOKENS,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "use_cache": False,
}


def architecture(maker: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    """Enter ``maker``, which returns (model, args[, kwargs]), under its own name."""
    MAKERS[maker.__name__] = maker
    return maker


def token_ids(length: int = SEQUENCE) -> torch.Tensor:
    """Return random token ids [2, length] without special ones."""
    return torch.randint(3, VOCABULARY, (2, length))


def image(size: int) -> torch.Tensor:
    """Return two random images [2, 3, size, size]."""
    return torch.randn(2, 3, size, size)


def causal_language_model(family: str, **options: Any) -> tuple[Any, ...]:
    """Build ``<family>ForCausalLM`` from ``<family>Config`` in the shared decoder size."""
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**DECODER, **options})
    return getattr(transformers, f"{family}ForCausalLM")(config), (), {"input_ids": token_ids()}


@architecture
def bert() -> tuple[Any, ...]:
    from transformers import BertConfig, BertForSequenceClassification

    inputs = {"input_ids": token_ids(), "attention_mask": torch.ones(2, SEQUENCE, dtype=torch.long)}
    return BertForSequenceClassification(BertConfig(**TEXT)), (), inputs


@architecture
def distilbert() -> tuple[Any, ...]:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=VOCABULARY, dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=2 * WIDTH)
    return DistilBertForSequenceClassification(config), (), {"input_ids": token_ids()}


@architecture
def roberta() -> tuple[Any, ...]:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(RobertaConfig(**TEXT, pad_token_id=1)), (), {"input_ids": token_ids()}


@architecture
def gpt2() -> tuple[Any, ...]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        n_positions=64,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config), (), {"input_ids": token_ids()}


@architecture
def llama() -> tuple[Any, ...]:
    return causal_language_model("Llama")


@architecture
def mistral() -> tuple[Any, ...]:
    return causal_language_model("Mistral")


@architecture
def qwen2() -> tuple[Any, ...]:
    return causal_language_model("Qwen2")


@architecture
def qwen3() -> tuple[Any, ...]:
    return causal_language_model("Qwen3", head_dim=12, tie_word_embeddings=True)


@architecture
def mixtral() -> tuple[Any, ...]:
    # The other implementations of the experts loop over them in Python, depending on the data.
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
    return causal_language_model("Mixtral", **experts)


@architecture
def t5() -> tuple[Any, ...]:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=WIDTH // 4,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        use_cache=False,
        decoder_start_token_id=0,
    )
    inputs = {"input_ids": token_ids(), "decoder_input_ids": token_ids(7)}
    return T5ForConditionalGeneration(config), (), inputs


@architecture
def vit() -> tuple[Any, ...]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**VISION)), (image(32),)


@architecture
def clip_vision() -> tuple[Any, ...]:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**VISION)), (image(32),)


@architecture
def whisper_encoder() -> tuple[Any, ...]:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        num_mel_bins=16,
        max_source_positions=32,
        decoder_start_token_id=1,
        **SPECIAL_TOKENS,
    )
    return WhisperModel(config).encoder, (torch.randn(2, 16, 64),)


@architecture
def segformer() -> tuple[Any, ...]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=32
    )
    return SegformerForSemanticSegmentation(config), (image(64),)


@architecture
def mamba() -> tuple[Any, ...]:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, use_cache=False, **SPECIAL_TOKENS
    )
    # The scan is unrolled over the sequence when traced, so a short one it is.
    return MambaForCausalLM(config), (), {"input_ids": token_ids(6)}
