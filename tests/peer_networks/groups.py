"""Networks with grouped and depthwise convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.peer_networks.base import Net, conv, network


@network
class GroupedChain(Net):
    """Grouped convolutions of different numbers of groups after each other, group norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 24, 3, padding=1, groups=4)
        self.c = nn.Conv2d(24, 12, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(3, 12)
        self.d = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.c(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.head(torch.relu(self.d(x)).mean((2, 3)))


@network
class DepthwiseMultiplier(Net):
    """Depthwise convolution with several outputs for each input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 18, 3, padding=1, groups=6)
        self.c, self.head = nn.Conv2d(18, 7, 1), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))).mean((2, 3)))


@network
class DepthwiseOnConcatenation(Net):
    """Depthwise convolution of a concatenation, residual to one operand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), conv(3, 6)
        self.depthwise, self.out = conv(10, 10, groups=10), conv(10, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        b = self.b(x)
        return self.head((b + self.out(self.depthwise(torch.cat([self.a(x), b], 1)))).mean((2, 3)))


@network
class ShuffledGroups(Net):
    """Channel shuffle between grouped convolutions, and a half that passes by."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.branch = nn.Sequential(conv(8, 8, 1, groups=2), conv(8, 8, groups=8), conv(8, 8, 1, groups=2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            left, right = x[:, :8], x[:, 8:]
            x = torch.cat([left, self.branch(right)], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))
