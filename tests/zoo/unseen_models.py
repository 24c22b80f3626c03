"""Architectures outside of the zoo, on which no rule was developed: ``python -m tests.zoo.sweep``.

Models of transformers are families with the options that their configurations call by other names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.zoo.transformers_models import DECODER, SPECIAL_TOKENS, TEXT, VISION, WIDTH, image, token_ids

TIMM = """
bat_resnext26ts beitv2_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224 coat_lite_tiny coatnext_nano_rw_224
convformer_s18 convit_tiny convmixer_768_32 convnext_atto cpubone_b0_bfrobust crossvit_9_240 cs3darknet_focus_s csatv2
cspnext_tiny darknet17 davit_tiny deit3_small_patch16_224 densenet121 dla46x_c dm_nfnet_f0 dpn48b eca_botnext26ts_256
eca_vovnet39b efficientformerv2_s0 efficientvim_m1 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim_dw
eva02_small_patch14_224 fasternet_t0 fbnetv3_b flexivit_small focalnet_tiny_srf gcresnet33ts gcvit_xtiny gemma4_vit_167m
gernet_s ghostnetv2_100 ghostnetv3_050 gmixer_12_224 gmlp_ti16_224 halonet26t hardcorenas_a hgnetv2_b0 hiera_tiny_224
iformer_t inception_resnet_v2 inception_v3 inception_v4 lambda_resnet26t lamhalobotnet50ts_256 lcnet_035 lcnetv2_small
legacy_senet154 legacy_seresnet18 legacy_xception levit_conv_128s lowformer_b0 mambaout_femto maxxvit_rmlp_nano_rw_256
mixnet_s mnasnet_small mobilenet_edgetpu_100 mobilenetv3_small_050 mobilenetv5_300m mobileone_s1 mvitv2_tiny
naflexvit_base_patch16_gap nest_tiny nextvit_small nf_regnet_b0 nf_resnet26 pit_ti_224 poolformerv2_s12 pvt_v2_b2_li
qwen3_vit_88m rdnet_tiny regnetv_040 regnety_002 regnetz_005 repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest26d
resnet26t resnet50_gn resnetaa50 resnetblur18 resnetrs50 resnetv2_50d_evos resnetv2_50d_frn resnetv2_50x1_bit
rexnetr_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls60b sequencer2d_s shvit_s1 skresnext50_32x4d starnet_s1
swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tinynet_d tnt_s_patch16_224 tresnet_m
twins_pcpvt_small vgg11 vit_relpos_small_patch16_224 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3
vit_srelpos_small_patch16_224 vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 xception41 xcit_nano_12_p16_224
""".split()

TORCHVISION = """
convnext_small densenet169 efficientnet_b1 mnasnet0_5 regnet_y_800mf resnet34 shufflenet_v2_x0_5 squeezenet1_1
swin_v2_t vgg11
""".split()

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
_GPT = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
_LATENT_ATTENTION = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "experts_implementation": "batched_mm",
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 8,
    "head_dim": 4,
    "n_shared_experts": 1,
    "topk_group": 1,
}

DECODERS: dict[str, dict[str, Any]] = {
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Cohere": {},
    "DeepseekV3": {**_LATENT_ATTENTION, "n_group": 2},
    "Falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 96},
    "GPTJ": {**_GPT, "rotary_dim": 4},
    "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    "GPTNeoX": {"rotary_pct": 0.5},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "sliding_window": 8},
    "Granite": {},
    "Mamba2": {"num_heads": 8, "head_dim": 12, "state_size": 8, "n_groups": 2, "chunk_size": 4},
    "OPT": {"ffn_dim": 96, "word_embed_proj_dim": 24},
    "Olmo": {},
    "Olmo2": {},
    "Phi": {"num_attention_heads": 4},
    "Phi3": {},
    "Qwen2Moe": {**_EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    "Qwen3Moe": {**_EXPERTS, "moe_intermediate_size": 32},
    "StableLm": {},
    "Starcoder2": {},
}

_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16}
ENCODERS: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 16},
    "Deberta": _DISENTANGLED,
    "DebertaV2": _DISENTANGLED,
    "Electra": {"embedding_size": 16},
    "LayoutLM": {},
    "MegatronBert": {},
    "RoFormer": {"embedding_size": 16},
    "SqueezeBert": {"embedding_size": WIDTH},
}

SEQUENCE_TO_SEQUENCE = "Bart MBart Pegasus Blenderbot M2M100 PLBart".split()

VISION_MODELS = "Beit DeiT Dinov2 Dinov2WithRegisters ViTMSN Data2VecVision".split()


def unseen_names() -> list[str]:
    """Return all names, in the order of the table."""
    return list(unseen_makers())


def unseen_makers() -> dict[str, Callable[[], tuple[Any, ...]]]:
    """Return, by name, functions that return (model, args[, kwargs])."""
    makers: dict[str, Callable[[], tuple[Any, ...]]] = {}
    for name in TORCHVISION:
        makers[f"torchvision/{name}"] = lambda name=name: _torchvision(name)
    for name in TIMM:
        makers[f"timm/{name}"] = lambda name=name: _timm(name)
    for family, options in DECODERS.items():
        makers[f"hf/{family.lower()}"] = lambda f=family, o=options: _text(f, "ForCausalLM", {**DECODER, **o})
    for family, options in ENCODERS.items():
        options = {**TEXT, "max_position_embeddings": 64, **options}
        makers[f"hf/{family.lower()}"] = lambda f=family, o=options: _text(f, "ForSequenceClassification", o)
    for family in SEQUENCE_TO_SEQUENCE:
        makers[f"hf/{family.lower()}"] = lambda f=family: _sequence_to_sequence(f)
    for family in VISION_MODELS:
        makers[f"hf/{family.lower()}"] = lambda f=family: _vision(f)
    return makers


def _torchvision(name: str) -> tuple[Any, ...]:
    from torchvision import models

    return models.get_model(name, weights=None), (torch.randn(2, 3, 64, 64),)


def _timm(name: str) -> tuple[Any, ...]:
    """Return the model with the smallest images that it takes."""
    import timm

    *_, largest = timm.create_model(name).default_cfg["input_size"]
    for size in sorted({64, 96, 128, 160, 192, 224, largest}):
        try:
            model = _timm_of_size(name, size).eval()
            images = torch.randn(2, 3, size, size)
            with torch.no_grad():
                model(images)
        except (RuntimeError, AssertionError, ValueError, IndexError):
            if size == largest:
                raise
        else:
            return model, (images,)
    raise AssertionError("the loop ends with the size that the model is made for")


def _timm_of_size(name: str, size: int) -> torch.nn.Module:
    import timm

    torch.manual_seed(0)
    try:
        return timm.create_model(name, img_size=size)
    except TypeError:  # convolutional networks have no option of that name
        return timm.create_model(name)


def _text(family: str, task: str, options: dict[str, Any]) -> tuple[Any, ...]:
    import transformers

    config = getattr(transformers, f"{family}Config")(**options)
    return getattr(transformers, f"{family}{task}")(config), (), {"input_ids": token_ids()}


def _vision(family: str) -> tuple[Any, ...]:
    import transformers

    config = getattr(transformers, f"{family}Config")(**VISION)
    return getattr(transformers, f"{family}ForImageClassification")(config), (image(32),)


def _sequence_to_sequence(family: str) -> tuple[Any, ...]:
    import transformers

    sizes = {"layers": 2, "attention_heads": 4, "ffn_dim": 2 * WIDTH}
    halves = {f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in sizes.items()}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=TEXT["vocab_size"],
        d_model=WIDTH,
        max_position_embeddings=64,
        use_cache=False,
        decoder_start_token_id=1,
        **halves,
        **SPECIAL_TOKENS,
    )
    inputs = {"input_ids": token_ids(), "decoder_input_ids": token_ids(7)}
    return getattr(transformers, f"{family}ForConditionalGeneration")(config), (), inputs
