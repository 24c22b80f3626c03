"""Networks that use a module, a weight or a stream more than once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.peer_networks.base import Net, conv, image, network, rows


@network
class ReusedModule(Net):
    """One convolution applied three times ties its inputs to its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = conv(3, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm in self.norms:
            x = torch.relu(norm(self.shared(x)))
        return self.head(x.mean((2, 3)))


@network
class SharedHeads(Net):
    """A detection head shared by pyramid levels of different resolution, with a scale of its own for each."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 6, stride=2), conv(6, 10, stride=2), conv(10, 12, stride=1)])
        self.lateral = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in (6, 10, 12))
        self.tower, self.boxes, self.classes = conv(8, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, classes, above = [], [], None
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        for level in (2, 1, 0):
            y = self.lateral[level](maps[level])
            if above is not None:
                y = y + functional.interpolate(above, size=y.shape[-2:])
            above = y
            y = self.tower(y)
            boxes.append((self.boxes(y) * self.scales[level]).flatten(2))
            classes.append(self.classes(y).flatten(2))
        return {"boxes": torch.cat(boxes, 2).transpose(1, 2), "classes": torch.cat(classes, 2).transpose(1, 2)}


@network
class Siamese(Net):
    """Two inputs through one encoder, compared by difference and by cosine."""

    inputs = staticmethod(lambda: (*image(), *image()))

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(3, 6), conv(6, 8, stride=2), nn.Flatten(), nn.Linear(8 * 16, 12))
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.encoder(x), self.encoder(y)
        return self.head(torch.cat([(a - b).abs(), a * b], 1)), functional.cosine_similarity(a, b)


@network
class TiedAutoencoder(Net):
    """The decoder reads the encoder's weights transposed."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 5)
        self.shift = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        code = self.second(torch.relu(self.first(x)))
        hidden = torch.relu(functional.linear(code, self.second.weight.t(), self.shift))
        return hidden @ self.first.weight


@network
class WeightBetweenResidualAndGate(Net):
    """A residual stream read, gated by itself, and added to a broadcast vector of its own channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8), conv(8, 8)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.position = nn.Parameter(torch.zeros(1, 8, 8, 8))
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.position
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return self.head(x + self.body(x) * gate[:, :, None, None])
