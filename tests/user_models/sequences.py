"""Recurrent networks, attention and control flow over sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint


class BidirectionalTagger(nn.Module):
    """Tags words with a two-layer bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.tags = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(words))
        return self.tags(states)


class GatedClassifier(nn.Module):
    """Classifies padded sequences by the last GRU state before the padding, without packing them."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 12)
        self.gru = nn.GRU(12, 10, num_layers=2, batch_first=True)
        self.leave = nn.Linear(20, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states, last = self.gru(torch.tanh(self.enter(x)))
        index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        at_end = states.gather(1, index).squeeze(1)
        return self.leave(torch.cat([at_end, last[-1]], 1))


class CellLoop(nn.Module):
    """Steps an LSTMCell and a GRUCell by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(6, 12), nn.GRUCell(12, 10)
        self.leave = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c, g = x.new_zeros(x.shape[0], 12), x.new_zeros(x.shape[0], 12), x.new_zeros(x.shape[0], 10)
        outputs = []
        for t in range(x.shape[1]):
            h, c = self.first(x[:, t], (h, c))
            g = self.second(h, g)
            outputs.append(self.leave(g))
        return torch.stack(outputs, 1)


class ProjectedLSTM(nn.Module):
    """An LSTM whose states are projected to fewer units."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 16, num_layers=2, proj_size=8, bidirectional=True)
        self.leave = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.lstm(x)[0])


class Translator(nn.Module):
    """nn.Transformer with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 16), nn.Embedding(20, 16)
        self.transformer = nn.Transformer(16, 4, 2, 2, 24, batch_first=True)
        self.leave = nn.Linear(16, 20)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.leave(self.transformer(self.source(source), self.target(target), tgt_mask=mask, tgt_is_causal=True))


class MaskedAttention(nn.Module):
    """nn.MultiheadAttention with other widths for keys and values, a padding mask and averaged weights."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 16)
        self.first = nn.MultiheadAttention(16, 4, batch_first=True)
        self.second = nn.MultiheadAttention(16, 4, kdim=7, vdim=9, batch_first=True)
        self.keys, self.values = nn.Linear(5, 7), nn.Linear(5, 9)
        self.leave = nn.Linear(16, 2)

    def forward(self, x: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        y = self.enter(x)
        y = y + self.first(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        z, weights = self.second(y, self.keys(x), self.values(x), key_padding_mask=padding)
        return self.leave(y + z), weights


class EinsumAttention(nn.Module):
    """Attention written with einsum on weights that keep heads apart."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 14)
        self.qkv = nn.Parameter(torch.randn(3, 14, 4, 6))
        self.out = nn.Parameter(torch.randn(4, 6, 14))
        self.leave = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = torch.einsum("btc,pchd->pbhtd", x, self.qkv)
        weights = torch.einsum("bhqd,bhkd->bhqk", q, k).div(6**0.5).softmax(-1)
        return self.leave(x + torch.einsum("bhqk,bhkd,hdc->bqc", weights, v, self.out))


class TalkingHeads(nn.Module):
    """Attention whose logits and weights are mixed across heads."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 16), nn.Linear(16, 3)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        logits = (q @ k.transpose(-2, -1)) * 0.5
        weights = self.before(logits.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        weights = self.after(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.leave(x + self.out((weights @ v).transpose(1, 2).reshape(n, t, 16)))


class ConditionalNet(nn.Module):
    """Chooses a branch by torch.cond; what the branches touch stays, the rest shrinks."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden = nn.Linear(6, 12), nn.Linear(12, 8)
        self.left, self.right = nn.Linear(8, 10), nn.Linear(8, 10)
        self.leave = nn.Sequential(nn.Linear(10, 14), nn.GELU(), nn.Linear(14, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(functional.relu(self.enter(x)))
        x = torch.cond(x.sum() > 0, lambda y: self.left(y), lambda y: self.right(y).tanh(), (x,))
        return self.leave(x)


class RotaryByComplexNumbers(nn.Module):
    """Rotates queries and keys by complex positions."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out, self.leave = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        angles = torch.arange(7.0)[:, None] * torch.tensor([1.0, 0.1])
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def _rotate(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns[: x.shape[2]]).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, 4, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(self._rotate(q), self._rotate(k), v, is_causal=True)
        return self.leave(x + self.out(y.transpose(1, 2).reshape(n, t, 16)))


class HookedNet(nn.Module):
    """Hooks, checkpoints, parametrised weights and a region without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = weight_norm(nn.Linear(6, 12)), nn.Linear(10, 3)
        self.middle, self.last = spectral_norm(nn.Linear(12, 14)), orthogonal(nn.Linear(14, 10))
        self.enter.register_forward_hook(lambda module, inputs, output: output * 1.5)
        self.last.register_forward_pre_hook(lambda module, inputs: (inputs[0].relu(),))

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.enter, x, use_reentrant=False)
        with torch.no_grad():
            scale = x.abs().mean(-1, keepdim=True)
        return self.leave(self.last(self.middle(x / (scale + 1))))


class BagOfWords(nn.Module):
    """Compares two texts by averaged embeddings, bilinear score and cosine."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 12, mode="mean")
        self.left, self.right = nn.Linear(12, 10), nn.Linear(12, 8)
        self.score = nn.Bilinear(10, 8, 6)
        self.leave = nn.Linear(7, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = self.bag(first), self.bag(second)
        similarity = functional.cosine_similarity(a, b, dim=-1)
        scores = self.score(self.left(a).relu(), self.right(b).relu())
        return self.leave(torch.cat([scores, similarity[:, None]], 1))


def _ids(*shape: int, below: int = 20) -> Tensor:
    return torch.randint(0, below, shape)


_PADDING = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])

SEQUENCE_MODELS = {
    "bidirectional_tagger": lambda: (BidirectionalTagger(), (_ids(2, 7),)),
    "gated_classifier": lambda: (GatedClassifier(), (torch.randn(3, 5, 6), torch.tensor([5, 2, 3]))),
    "cell_loop": lambda: (CellLoop(), (torch.randn(2, 4, 6),)),
    "projected_lstm": lambda: (ProjectedLSTM(), (torch.randn(5, 2, 6),)),
    "translator": lambda: (Translator(), (_ids(2, 6), _ids(2, 5))),
    "masked_attention": lambda: (MaskedAttention(), (torch.randn(2, 6, 5), _PADDING)),
    "einsum_attention": lambda: (EinsumAttention(), (torch.randn(2, 5, 6),)),
    "talking_heads": lambda: (TalkingHeads(), (torch.randn(2, 5, 6),)),
    "conditional": lambda: (ConditionalNet(), (torch.randn(2, 6),)),
    "rotary_complex": lambda: (RotaryByComplexNumbers(), (torch.randn(2, 5, 5),)),
    "hooked": lambda: (HookedNet(), (torch.randn(4, 6),)),
    "bag_of_words": lambda: (BagOfWords(), (_ids(3, 6), _ids(3, 4))),
}
