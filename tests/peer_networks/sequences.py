"""Networks on sequences: recurrent, attention, mixtures, causal convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.peer_networks.base import Net, network, tokens


@network
class RecurrentLanguageModel(Net):
    """Embedding, LSTM of two layers, layer norm, head tied to the embedding."""

    inputs = staticmethod(lambda: (torch.randint(0, 20, (2, 5)),))

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.recurrence = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.norm, self.out = nn.LayerNorm(12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.out(self.norm(self.recurrence(self.embedding(x))[0])))


@network
class BidirectionalTagger(Net):
    """Bidirectional GRU, its last states concatenated."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.GRU(8, 6, batch_first=True, bidirectional=True)
        self.hidden, self.head = nn.Linear(12, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.recurrence(x)
        return self.head(torch.relu(self.hidden(sequence)))


@network
class CellByHand(Net):
    """A recurrent cell unrolled by Python: the same weights at each step."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.gates, self.head = nn.GRUCell(8, 6), nn.Linear(14, 4 * 6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = x.new_zeros(x.shape[0], 6)
        h = c = x.new_zeros(x.shape[0], 6)
        for step in range(x.shape[1]):
            first = self.cell(x[:, step], first)
            i, f, g, o = self.gates(torch.cat([x[:, step], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(torch.cat([first, h], 1))


@network
class EncoderOfTorch(Net):
    """torch's own transformer layers, encoder and decoder."""

    inputs = staticmethod(lambda: (*tokens(), *tokens(length=4)))

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**options, activation="gelu"), 2)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options, norm_first=True), 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.decoder(y, self.encoder(x)))


@network
class DiffusionTransformer(Net):
    """DiT: patches, adaptive layer norm from a time embedding, patches back to an image."""

    inputs = staticmethod(lambda: (torch.randn(2, 4, 8, 8), torch.rand(2)))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, 12, 2, 2)
        self.time = nn.Sequential(nn.Linear(8, 12), nn.SiLU(), nn.Linear(12, 12))
        self.modulation = nn.Linear(12, 72)
        self.norm1, self.norm2 = (nn.LayerNorm(12, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU("tanh"), nn.Linear(24, 12))
        self.out = nn.Linear(12, 16)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.exp(-torch.arange(4) / 4)[None]
        condition = self.time(torch.cat([angles.cos(), angles.sin()], -1))
        x = self.patches(x).flatten(2).transpose(1, 2)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        y = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(y, y, y, need_weights=False)[0]
        x = x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        x = self.out(x).reshape(-1, 4, 4, 2, 2, 4)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(-1, 4, 8, 8)


@network
class WaveNet(Net):
    """Dilated 1-D convolutions with gates, residual and skip sums."""

    inputs = staticmethod(lambda: (torch.randn(2, 1, 20),))

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 6, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(6, 8, 1) for _ in range(3))
        self.residual = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))
        self.head = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), None
        for dilated, skip, residual in zip(self.dilated, self.skip, self.residual, strict=True):
            y = dilated(functional.pad(x, (dilated.dilation[0], 0)))
            y = torch.tanh(y[:, :6]) * torch.sigmoid(y[:, 6:])
            total = skip(y) if total is None else total + skip(y)
            x = x + residual(y)
        assert total is not None
        return self.head(torch.relu(total))


@network
class StateBuffers(Net):
    """A cache and a mask in buffers, sliced to the length of the input."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.randn(1, 3, 8))
        self.register_buffer("mask", torch.ones(16, 16).tril().bool())
        self.register_buffer("mean", torch.randn(12))
        self.q, self.k, self.v, self.out = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([self.cache.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.q(x), self.k(seen), self.v(seen) - self.mean
        scores = (q @ k.mT) / 12**0.5
        scores = scores.masked_fill(~self.mask[3 : 3 + x.shape[1], : seen.shape[1]], float("-inf"))
        return self.out(scores.softmax(-1) @ v)


@network
class MixtureOfExperts(Net):
    """Every expert computed, weighted by a softmax gate."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.up, self.down = nn.Parameter(torch.randn(4, 8, 12) / 3), nn.Parameter(torch.randn(4, 12, 8) / 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(torch.einsum("ntc,ech->neth", x, self.up))
        out = torch.einsum("neth,ehc->netc", hidden, self.down)
        return self.head(x + torch.einsum("netc,nte->ntc", out, self.gate(x).softmax(-1)))


@network
class FourierMixer(Net):
    """Tokens mixed by a Fourier transform."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.start, self.norm, self.up, self.down = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        x = self.norm(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        return self.down(torch.relu(self.up(x)))


@network
class WrittenByPosition(Net):
    """Results collected by writing into a tensor made beforehand."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], x.shape[1], 6)
        out[:, ::2] = self.a(x[:, ::2])
        out[:, 1::2] = self.b(x[:, 1::2])
        out[:, 0] += 1
        return self.head(out)


@network
class TemporalShift(Net):
    """Frames exchange some of their channels: slices written into a tensor of zeros."""

    inputs = staticmethod(lambda: (torch.randn(2, 4, 3, 6, 6),))

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        maps = self.first(x.flatten(0, 1))
        clip = maps.unflatten(0, (batch, frames))
        shifted = torch.zeros_like(clip)
        shifted[:, :-1, :3] = clip[:, 1:, :3]
        shifted[:, 1:, 3:6] = clip[:, :-1, 3:6]
        shifted[:, :, 6:] = clip[:, :, 6:]
        return self.head((maps + self.second(shifted.flatten(0, 1))).mean((2, 3)).view(batch, frames, 12).mean(1))


@network
class SpectralOperator(Net):
    """Fourier neural operator: low frequencies mixed by complex weights and written into an empty spectrum."""

    inputs = staticmethod(lambda: (torch.randn(2, 3, 8),))

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.local, self.head = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 6, 1), nn.Conv1d(6, 2, 1)
        self.mixing = nn.Parameter(torch.randn(6, 6, 3, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        spectrum = torch.zeros(x.shape[0], 6, 5, dtype=torch.cfloat)
        spectrum[:, :, :3] = torch.einsum("bik,iok->bok", torch.fft.rfft(x)[:, :, :3], self.mixing)
        return self.head(functional.gelu(torch.fft.irfft(spectrum, n=8) + self.local(x)))


@network
class SentenceConvolution(Net):
    """Kim's classifier: kernels as wide as the embedding, maxima over time beside each other."""

    inputs = staticmethod(lambda: (torch.randint(0, 20, (2, 9)),))

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.kernels = nn.ModuleList(nn.Conv2d(1, 6, (length, 8)) for length in (2, 3, 4))
        self.head = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x).unsqueeze(1)
        return self.head(torch.cat([torch.relu(kernel(x)).squeeze(3).amax(2) for kernel in self.kernels], 1))
