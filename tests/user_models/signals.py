"""Networks over sound."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


class GatedDilatedNet(nn.Module):
    """Causal dilated convolutions with gates, residuals and summed skips, as in WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 10, 1)
        self.gates = nn.ModuleList(weight_norm(nn.Conv1d(10, 16, 2, dilation=2**i)) for i in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(8, 10, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(8, 12, 1) for _ in range(3))
        self.leave = nn.Sequential(nn.ReLU(), nn.Conv1d(12, 14, 1), nn.ReLU(), nn.Conv1d(14, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), 0.0
        for i, (gate, residual, skip) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            filters, gates = gate(functional.pad(x, (2**i, 0))).chunk(2, dim=1)
            y = torch.tanh(filters) * torch.sigmoid(gates)
            x, total = x + residual(y), total + skip(y)
        return self.leave(total)


class SpectrogramNet(nn.Module):
    """Convolutions on a log spectrogram; the transform itself has nothing to remove."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.filters = nn.Linear(9, 12)
        self.convolutions = nn.Sequential(
            nn.Conv1d(12, 10, 3, padding=1), nn.BatchNorm1d(10), nn.GELU(), nn.Conv1d(10, 8, 3, padding=1, groups=2)
        )
        self.leave = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 16, 8, window=self.window, return_complex=True)
        y = self.filters(torch.log1p(spectrum.abs()).transpose(1, 2)).transpose(1, 2)
        return self.leave(self.convolutions(y).logsumexp(-1))


class FrequencyMixer(nn.Module):
    """Mixes tokens in the frequency domain with a learned complex filter, as in GFNet."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.down = nn.Linear(4, 10), nn.Linear(10, 16), nn.Linear(16, 10)
        self.real, self.imaginary = nn.Parameter(torch.randn(5, 10)), nn.Parameter(torch.randn(5, 10))
        self.leave = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        spectrum = torch.fft.rfft(x, dim=1) * torch.complex(self.real, self.imaginary)
        x = x + torch.fft.irfft(spectrum, n=x.shape[1], dim=1)
        return self.leave(x + self.down(functional.gelu(self.up(x))))


SIGNAL_MODELS = {
    "gated_dilated": lambda: (GatedDilatedNet(), (torch.randn(2, 1, 20),)),
    "spectrogram": lambda: (SpectrogramNet(), (torch.randn(2, 64),)),
    "frequency_mixer": lambda: (FrequencyMixer(), (torch.randn(2, 8, 4),)),
}
