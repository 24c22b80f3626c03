"""Networks with parameters outside of layers, and with computed weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.peer_networks.base import Net, network, rows, tokens


@network
class BareParameters(Net):
    """Parameters that belong to no layer: scales, tokens, mixing matrices, a list and a dictionary of them."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 10))
        self.scale = nn.Parameter(torch.ones(10))
        self.mix = nn.Parameter(torch.randn(10, 7))
        self.list = nn.ParameterList([torch.randn(7, 9), torch.randn(9)])
        self.table = nn.ParameterDict({"out": torch.randn(9, 3), "shift": torch.zeros(3)})
        self.project = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) * self.scale
        x = torch.tanh(x @ self.mix) @ self.list[0] + self.list[1]
        return torch.addmm(self.table["shift"], x[:, 0], self.table["out"])


@network
class LayerOfOnesOwn(Net):
    """A layer that divides by the norm over its own channels, scales, shifts and projects."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after, self.inner = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(12, 12)
        self.scale, self.shift = nn.Parameter(torch.ones(12)), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.before(x))
        x = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-3)
        return self.after(self.inner(x * self.scale + self.shift))


@network
class LayerScale(Net):
    """ConvNeXt's block: depthwise, channels last, a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 20), nn.Linear(20, 8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 1e-6))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(functional.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return self.head((x + y.permute(0, 3, 1, 2) * self.scale).mean((-2, -1)))


@network
class Parametrised(Net):
    """Weight norm, spectral norm and orthogonal parametrisations compute the weights in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.b = parametrizations.weight_norm(nn.Linear(6, 8), dim=0)
        self.c = parametrizations.spectral_norm(nn.Linear(8, 9))
        self.d = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)).mean((2, 3)))))))
