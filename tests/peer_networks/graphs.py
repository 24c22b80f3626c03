"""Networks with branches, skips, several inputs and several outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.peer_networks.base import Net, conv, image, network


@network
class BranchThatDoesNotMatter(Net):
    """A branch whose result is not used, one multiplied by zero gradients, a parameter nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 6), conv(6, 6), conv(6, 9)
        self.unused = nn.Parameter(torch.zeros(5))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.b(x)
        return self.head((self.a(x) + self.a(x.detach())).mean((2, 3)))


class Outputs(NamedTuple):
    """What the next network returns."""

    logits: Tensor
    features: list[Tensor]
    extra: dict[str, Tensor]


@network
class ManyInputsAndOutputs(Net):
    """Several inputs, keyword ones among them, nested outputs; intermediate maps are outputs too."""

    inputs = staticmethod(lambda: (torch.randn(2, 3, 8, 8), {"vector": torch.randn(2, 6)}))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 8), nn.Linear(6, 8)
        self.d, self.e = nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor, others: dict[str, Tensor]) -> tuple[Any, ...]:
        a = self.a(x)
        b = self.b(a) * torch.sigmoid(self.c(others["vector"]))[:, :, None, None]
        hidden = torch.relu(self.d(b.mean((2, 3))))
        return tuple(Outputs(self.e(hidden), [b], {"mean": hidden.mean(0), "size": hidden.sum(1)}))


@network
class LongSkip(Net):
    """A U-Net: encoder maps beside up-sampled ones, by transposed convolution, interpolation and pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4), conv(4, 6), conv(6, 8), conv(8, 12)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1)])
        self.merge = nn.ModuleList([conv(16, 8), conv(12, 6), conv(8, 5)])
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, stage in enumerate(self.down):
            x = stage(x if i == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        x = self.merge[0](torch.cat([skips[2], self.up[0](x)], 1))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = self.merge[1](torch.cat([skips[1], self.up[1](x)], 1))
        x = self.merge[2](torch.cat([skips[0], functional.pixel_shuffle(self.up[2](x), 2)], 1))
        return self.head(x)


@network
class Detector(Net):
    """YOLO's parts: partial stages, pyramid pooling, two-way feature pyramid, boxes as distributions."""

    inputs = staticmethod(lambda: image(size=32))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage1, self.stage2 = conv(3, 8, stride=2), conv(8, 12, stride=2), conv(12, 16, stride=2)
        self.partial = nn.ModuleList([conv(12, 16, 1), conv(8, 8), conv(8, 8), conv(32, 12, 1)])
        self.pool = nn.ModuleList([conv(16, 8, 1), conv(32, 16, 1)])
        self.top_down, self.bottom_up, self.last = conv(28, 12), conv(12, 12, stride=2), conv(28, 16)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4 * 5, 1) for width in (12, 16))
        self.classes = nn.ModuleList(nn.Sequential(conv(width, 8), nn.Conv2d(8, 3, 1)) for width in (12, 16))
        self.register_buffer("bins", torch.arange(5.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stage1(self.stem(x))
        pieces = list(self.partial[0](x).chunk(2, 1))
        for block in self.partial[1:3]:
            pieces.append(pieces[-1] + block(pieces[-1]))
        small = self.partial[3](torch.cat(pieces, 1))
        y = self.pool[0](self.stage2(small))
        pooled = [y]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        large = self.pool[1](torch.cat(pooled, 1))
        small = self.top_down(torch.cat([functional.interpolate(large, scale_factor=2.0), small], 1))
        large = self.last(torch.cat([self.bottom_up(small), large], 1))
        boxes, classes = [], []
        for i, level in enumerate((small, large)):
            n, _, h, w = level.shape
            distribution = self.boxes[i](level).view(n, 4, 5, h * w).softmax(2)
            boxes.append((distribution * self.bins.view(1, 1, 5, 1)).sum(2))
            classes.append(self.classes[i](level).flatten(2).sigmoid())
        return torch.cat(boxes, 2), torch.cat(classes, 2)
