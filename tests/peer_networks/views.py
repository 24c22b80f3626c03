"""Networks that view, flatten, permute, squeeze and shuffle pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.peer_networks.base import Net, conv, network, rows, tokens


@network
class FlattenAfterConvolution(Net):
    """The oldest one: each channel owns 16 columns of the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 5, padding=2), nn.Conv2d(6, 10, 3, padding=1)
        self.c, self.d = nn.Linear(10 * 2 * 2, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.a(x)), 2)
        x = functional.max_pool2d(torch.relu(self.b(x)), 2)
        return self.d(functional.dropout(torch.relu(self.c(x.reshape(x.size(0), -1))), training=self.training))


@network
class LinearToImage(Net):
    """A generator: the units of a linear layer become channels and pixels of transposed convolutions."""

    inputs = staticmethod(rows)

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(6, 8 * 4 * 4)
        self.a = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.b = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, groups=2)
        self.end = nn.Linear(4 * 16 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(x)).view(-1, self.a.in_channels, 4, 4)
        return self.end(torch.flatten(self.b(torch.relu(self.norm(self.a(x)))), 1))


@network
class ChannelsLastFlatten(Net):
    """Permuted before it is flattened: the channel is the fastest index of the classifier's columns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 6, stride=2), nn.Linear(6 * 16, 8)
        self.c = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(self.a(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1))))


@network
class SizesSpelledOut(Net):
    """Code that writes its sizes as numbers, where other libraries break after pruning."""

    inputs = staticmethod(tokens)

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(8, 36), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) * 4**-0.5).softmax(-1)
        return self.head(x + self.out((attention @ v).transpose(1, 2).reshape(2, 5, 12))).mean(1)


@network
class DroppedDimensions(Net):
    """Axes that come and go: pooled to one, squeezed, indexed, unsqueezed, expanded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 6), nn.Conv2d(6, 6, 1)
        self.c, self.d = nn.Linear(6, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        pooled = functional.adaptive_avg_pool2d(x, 1)
        x = x * torch.sigmoid(self.b(pooled)).expand_as(x)
        x = functional.adaptive_max_pool2d(x, (1, 1)).squeeze(-1)[..., 0]
        return self.d(torch.relu(self.c(x.unsqueeze(1)).squeeze(1)))


@network
class PixelShuffles(Net):
    """Sub-pixel up-sampling and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), nn.Conv2d(8, 6 * 4, 3, padding=1)
        self.c, self.d = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(20, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pixel_shuffle(self.b(self.a(x)), 2)
        return self.d(functional.pixel_unshuffle(torch.relu(self.c(x)), 2))


@network
class SpaceToDepthByViews(Net):
    """Focus layer by strided slices, and patches by views."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.focus, self.head = conv(3, 6), conv(24, 8), nn.Linear(8 * 2 * 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pieces = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        x = self.focus(torch.cat(pieces, 1))
        n, c, h, w = x.shape
        patches = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * 4)
        return self.head(patches).mean(1)


@network
class LowerRankOutput(Net):
    """One output channel, squeezed away."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 6), nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)).squeeze(1)
