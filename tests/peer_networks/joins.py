"""Networks that concatenate, split and chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.peer_networks.base import Net, conv, network


@network
class ConcatenationThenSplit(Net):
    """Pieces of a concatenation cut at other places than it was joined."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(3, 10), conv(3, 8)
        self.first, self.second = conv(9, 5), conv(15, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(torch.cat([self.a(x), self.b(x), self.c(x)], 1), [9, 15], 1)
        return self.head((self.first(first) + self.second(second)).mean((2, 3)))


@network
class NestedConcatenation(Net):
    """Concatenations of concatenations, one operand twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), conv(3, 6)
        self.c, self.d = conv(10, 5), conv(25, 7)
        self.head = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        ab = torch.cat([a, b], 1)
        c = self.c(ab)
        return self.head(self.d(torch.cat([ab, torch.cat([c, ab], 1)], 1)))


@network
class ChunksGated(Net):
    """Chunks of one layer multiplied, added, and one of them left unused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.out = conv(3, 8), conv(8, 24), conv(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b, c, _ = self.wide(x).chunk(4, 1)
        return self.head((x + self.out(a * torch.sigmoid(b) + c)).mean((2, 3)))


@network
class ConcatenationOfSpace(Net):
    """Concatenation along other axes than the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(3, 6), conv(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.cat([torch.cat([self.a(x), self.b(x)], 2), self.b(x).repeat(1, 1, 2, 1)], 3)
        return self.head(self.c(wide).amax((2, 3)))


@network
class DenseBlock(Net):
    """Every layer reads all earlier ones; the sum of growths is reduced by a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.layers = nn.ModuleList(conv(6 + 4 * i, 4) for i in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1), nn.AvgPool2d(2))
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.head(self.transition(torch.cat(features, 1)).flatten(2).mean(2))


@network
class ConcatenationAfterFlatten(Net):
    """Flattened maps of two branches beside each other, the classifier cut by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4, stride=2), conv(3, 6, stride=4)
        self.head = nn.Linear(4 * 16 + 6 * 4, 10)
        self.last = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(torch.cat([self.a(x).flatten(1), self.b(x).view(x.shape[0], -1)], 1))
        return self.last(y[:, 2:9]) + y[:, :2]
