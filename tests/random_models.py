"""Random models made of the blocks that real ones are made of, for property tests.

``random_model(seed)`` returns a small model in double precision and an input for it. Images are ``[N, C, H, W]``,
tokens ``[N, T, C]``; every block maps one kind to either.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS_OF_IMAGES: list[type[nn.Module]] = []
BLOCKS_OF_TOKENS: list[type[nn.Module]] = []


def _block(register: list[type[nn.Module]]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def decorate(block: type[nn.Module]) -> type[nn.Module]:
        register.append(block)
        return block

    return decorate


image, tokens = _block(BLOCKS_OF_IMAGES), _block(BLOCKS_OF_TOKENS)


class DoesNotFit(Exception):
    """Raised by a block that cannot be made for a shape."""


def require(condition: object) -> None:
    if not condition:
        raise DoesNotFit


def divisors(number: int) -> list[int]:
    return [d for d in range(2, number) if number % d == 0]


def width(rng: random.Random) -> int:
    return rng.choice([2, 3, 4, 5, 6, 8, 12])


def activation(rng: random.Random) -> nn.Module:
    return rng.choice([nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Identity(), nn.Hardswish(), nn.ReLU(True)])


def norm(rng: random.Random, channels: int) -> nn.Module:
    groups = rng.choice([1, *divisors(channels)])
    return rng.choice([
        nn.BatchNorm2d(channels), nn.GroupNorm(groups, channels), nn.Identity(),
        nn.InstanceNorm2d(channels, affine=True),
    ])  # fmt: skip


# ------------------------------------------------------------------------------------------------------ images


@image
class Convolution(nn.Sequential):
    def __init__(self, rng, n, c, h, w, out=None):
        out = out or width(rng)
        kernel = rng.choice([1, 3]) if min(h, w) > 2 else 1
        conv = nn.Conv2d(c, out, kernel, padding=kernel // 2, bias=rng.random() < 0.5)
        super().__init__(conv, norm(rng, out), activation(rng))


@image
class StridedConvolution(nn.Sequential):
    def __init__(self, rng, n, c, h, w):
        require(min(h, w) >= 6)
        super().__init__(nn.Conv2d(c, width(rng), 3, stride=2, padding=1), activation(rng))


@image
class GroupedConvolution(nn.Sequential):
    def __init__(self, rng, n, c, h, w):
        groups = rng.choice([*divisors(c), c])
        super().__init__(
            nn.Conv2d(c, groups * rng.choice([1, 2, 3]), 3, padding=1, groups=groups),
            norm(rng, groups),
            activation(rng),
        )
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        self[1] = norm(rng, conv.out_channels)


@image
class TransposedConvolution(nn.Sequential):
    def __init__(self, rng, n, c, h, w):
        require(h * w <= 16)
        groups = rng.choice([1, *divisors(c)])
        super().__init__(nn.ConvTranspose2d(c, groups * rng.choice([1, 2]), 2, stride=2, groups=groups))


@image
class Residual(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        self.first = Convolution(rng, n, c, h, w)
        hidden = self.first[0].out_channels
        self.second = Convolution(rng, n, hidden, h, w, out=c)
        self.scale = nn.Parameter(torch.ones(c, 1, 1)) if rng.random() < 0.3 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return x + (y if self.scale is None else y * self.scale)


@image
class Concatenation(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c <= 12)
        self.branches = nn.ModuleList(Convolution(rng, n, c, h, w) for _ in range(2))
        self.with_input = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(branch(x) for branch in self.branches), *([x] if self.with_input else [])], 1)


@image
class SplitTransformMerge(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c >= 2)
        self.at = rng.randint(1, c - 1)
        self.branch = Convolution(rng, n, self.at, h, w)
        self.swap = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, [self.at, x.shape[1] - self.at], 1)
        left = self.branch(left)
        return torch.cat([right, left] if self.swap else [left, right], 1)


@image
class Chunks(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        self.count = rng.choice([d for d in (2, 3) if c % d == 0] or [0])
        require(self.count)
        self.gate = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(self.count, 1)
        for other in others:
            first = first * other.sigmoid() if self.gate else first + other
        return first


@image
class ChannelShuffle(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(divisors(c))
        self.groups = rng.choice(divisors(c))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@image
class SqueezeExcite(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        hidden = width(rng)
        self.reduce, self.expand = nn.Conv2d(c, hidden, 1), nn.Conv2d(hidden, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


@image
class SomeChannels(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c >= 3)
        start = rng.randint(0, c - 2)
        self.window = slice(start, rng.randint(start + 1, c))
        if rng.random() < 0.3:
            self.window = slice(rng.randint(0, 1), None, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.window]


@image
class OneChannelGatesAll(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        self.index = rng.randint(0, c - 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * x[:, self.index].unsqueeze(1).sigmoid()


@image
class OneChannelKeptOut(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c >= 2)
        self.index = rng.randint(0, c - 1)

    def forward(self, x: Tensor) -> Tensor:
        one = x[:, self.index : self.index + 1]
        return torch.cat([x[:, self.index + 1 :], one * 2, x[:, : self.index]], 1)


@image
class MoreChannels(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c <= 6)
        self.kind = rng.choice(["pad", "repeat", "interleave", "roll"])
        self.amount = rng.randint(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "pad":
            return functional.pad(x, (0, 0, 0, 0, self.amount, 1), value=0.5)
        if self.kind == "repeat":
            return x.repeat(1, self.amount, 1, 1)
        if self.kind == "interleave":
            return x.repeat_interleave(self.amount, dim=1)
        return torch.roll(x, self.amount, 1)


def positions(rng: random.Random, size: int, kinds: list[str]) -> Tensor:
    """Return constant positions of ``size`` elements: all in another order, some of them, or some more than once."""
    kind = rng.choice(kinds)
    if kind == "rows":
        rows = rng.choice([1, *divisors(size)])
        return torch.arange(size).view(rows, -1).T.flatten()
    order = rng.sample(range(size), size)
    if kind == "subset":
        order = order[: rng.randint(1, size)]
    if kind == "repeated":
        order = rng.choices(order, k=rng.randint(1, size + 2))
    return torch.tensor(order)


@image
class ChannelsByNumber(nn.Module):
    """Takes channels at constant positions: permuted, some only, or repeated; maybe beside the channels in order."""

    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(2 <= c <= 12)
        self.register_buffer("positions", positions(rng, c, ["permutation", "rows", "subset", "repeated"]))
        self.by_op, self.added = rng.random() < 0.5, len(self.positions) == c and rng.random() < 0.3

    def forward(self, x: Tensor) -> Tensor:
        taken = x.index_select(1, self.positions) if self.by_op else x[:, self.positions]
        return x + taken if self.added else taken


@image
class SortedByNumber(nn.Module):
    """Permutes channels, works on them, and puts them back."""

    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c >= 2)
        order = positions(rng, c, ["permutation", "rows"])
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.conv = GroupedConvolution(rng, n, c, h, w) if divisors(c) and rng.random() < 0.5 else nn.Sequential()
        self.scale = nn.Parameter(torch.ones(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, self.order] * self.scale
        z = self.conv(y)
        return x + y[:, self.back] if z.shape != y.shape else x * z[:, self.back].sigmoid()


@image
class PixelShuffle(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        up = c % 4 == 0 and h * w <= 16
        require(up or (h % 2 == 0 and w % 2 == 0 and c <= 4))
        self.shuffle = nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(x)


@image
class Pooling(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(min(h, w) >= 4)
        self.pool = rng.choice(
            [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.Upsample(scale_factor=1.5)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@image
class ChannelStatistic(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        self.slope = nn.PReLU(c)
        self.kind = rng.choice(["mean", "amax", "sum", "norm"])

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(x)
        if self.kind == "mean":
            return x - x.mean(1, keepdim=True)
        if self.kind == "amax":
            return x - x.amax(1, keepdim=True)
        if self.kind == "sum":
            return x * x.sum(1, keepdim=True).sigmoid()
        return x / (x.norm(dim=1, keepdim=True) + 1)


@image
class ChannelsLast(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        hidden = width(rng)
        self.norm, self.up, self.down = nn.LayerNorm(c), nn.Linear(c, hidden), nn.Linear(hidden, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(functional.gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return x + y.permute(0, 3, 1, 2)


@image
class WrittenInPlace(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(c >= 2)
        self.at = rng.randint(1, c - 1)
        self.branch = Convolution(rng, n, c, h, w, out=self.at)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        result[:, : self.at] = self.branch(x)
        result[:, self.at :] = x[:, self.at :]
        return result


@image
class ToTokens(nn.Module):
    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(h * w <= 64)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


@image
class WindowsToTokens(nn.Module):
    """Cuts the image into windows, which join the batch, as Swin does, and undoes it after a linear layer."""

    def __init__(self, rng, n, c, h, w):
        super().__init__()
        require(h % 2 == 0 and w % 2 == 0)
        self.linear = nn.Linear(c, width(rng))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(n * (h // 2) * (w // 2), 4, c)
        x = self.linear(x)
        x = x.view(n, h // 2, w // 2, 2, 2, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(n, -1, h, w)


# ------------------------------------------------------------------------------------------------------ tokens


@tokens
class Perceptron(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        hidden = width(rng)
        self.norm = rng.choice([nn.LayerNorm(c), nn.RMSNorm(c), nn.Identity()])
        self.up, self.down = nn.Linear(c, hidden), nn.Linear(hidden, c)
        self.act = activation(rng)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


@tokens
class GatedPerceptron(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        hidden = width(rng)
        self.up, self.down = nn.Linear(c, 2 * hidden), nn.Linear(hidden, width(rng))
        self.fused = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.fused:
            return self.down(functional.glu(x, -1))
        gate, value = x.chunk(2, -1)
        return self.down(functional.silu(gate) * value)


@tokens
class FusedAttention(nn.Module):
    """One projection for queries, keys and values, cut up by a view, as in vision transformers."""

    def __init__(self, rng, n, t, c):
        super().__init__()
        self.heads, self.head_width = rng.choice([1, 2, 3]), rng.choice([2, 3, 4])
        inner = self.heads * self.head_width
        self.qkv, self.out = nn.Linear(c, 3 * inner), nn.Linear(inner, c)
        self.by_hand = rng.random() < 0.5
        self.bias = nn.Parameter(torch.zeros(self.heads, t, t)) if rng.random() < 0.4 else None

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        if self.by_hand:
            scores = q @ k.transpose(-2, -1) * self.head_width**-0.5
            y = (scores if self.bias is None else scores + self.bias).softmax(-1) @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v, self.bias)
        return x + self.out(y.transpose(1, 2).reshape(n, t, -1))


@tokens
class GroupedQueryAttention(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        self.groups, self.queries, self.head_width = rng.choice([1, 2]), rng.choice([2, 3]), rng.choice([2, 4])
        heads = self.groups * self.queries
        self.q = nn.Linear(c, heads * self.head_width)
        self.k, self.v = (nn.Linear(c, self.groups * self.head_width) for _ in range(2))
        self.out = nn.Linear(heads * self.head_width, c)
        self.expand = rng.random() < 0.5
        self.rotary = rng.random() < 0.5
        self.register_buffer("angles", torch.randn(t, self.head_width // 2))

    def rotate(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        angles = torch.cat([self.angles, self.angles], -1)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.rotate(self.q(x).view(n, t, -1, self.head_width).transpose(1, 2))
        k = self.rotate(self.k(x).view(n, t, -1, self.head_width).transpose(1, 2))
        v = self.v(x).view(n, t, -1, self.head_width).transpose(1, 2)
        if self.expand:
            k, v = (
                y[:, :, None]
                .expand(n, self.groups, self.queries, t, self.head_width)
                .reshape(n, -1, t, self.head_width)
                for y in (k, v)
            )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=not self.expand)
        return self.out(y.transpose(1, 2).contiguous().view(n, t, -1))


@tokens
class BatchedHeads(nn.Module):
    """Heads join the batch, as in old implementations of attention."""

    def __init__(self, rng, n, t, c):
        super().__init__()
        self.heads, self.head_width = rng.choice([2, 3]), rng.choice([2, 3])
        self.q, self.k, self.v = (nn.Linear(c, self.heads * self.head_width) for _ in range(3))
        self.out = nn.Linear(self.heads * self.head_width, c)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        shape = (n, t, self.heads, self.head_width)
        q, k, v = (
            layer(x).view(shape).transpose(1, 2).reshape(n * self.heads, t, self.head_width)
            for layer in (self.q, self.k, self.v)
        )
        y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return self.out(y.view(n, self.heads, t, self.head_width).transpose(1, 2).reshape(n, t, -1))


@tokens
class ReorderedHeads(nn.Module):
    """Attention whose heads, or whose elements inside the heads, are taken at constant positions."""

    def __init__(self, rng, n, t, c):
        super().__init__()
        self.heads, self.head_width = rng.choice([2, 3, 4]), rng.choice([2, 3, 4])
        self.qkv = nn.Linear(c, 3 * self.heads * self.head_width)
        kinds = ["permutation", "subset", "rows"]
        self.where = rng.choice(["heads", "widths", "flat"])
        size = {"heads": self.heads, "widths": self.head_width, "flat": self.heads * self.head_width}[self.where]
        self.register_buffer("positions", positions(rng, size, kinds))
        inner = self.heads * self.head_width // size * len(self.positions)
        self.out = nn.Linear(inner, c)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        if self.where == "heads":
            q, k, v = q[:, self.positions], k[:, self.positions], v[:, self.positions]
        elif self.where == "widths":
            q, k = q[..., self.positions], k[..., self.positions]
            v = v[..., self.positions]
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        return x + self.out(y[..., self.positions] if self.where == "flat" else y)


@tokens
class LinearAttention(nn.Module):
    """Sums over tokens instead of a softmax, by einsum, with a norm inside the heads."""

    def __init__(self, rng, n, t, c):
        super().__init__()
        self.heads, self.head_width = rng.choice([1, 2, 3]), rng.choice([2, 3])
        self.qkv = nn.Linear(c, 3 * self.heads * self.head_width)
        self.norm = nn.LayerNorm(self.head_width)
        self.out = nn.Linear(self.heads * self.head_width, width(rng))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (y.view(n, t, self.heads, self.head_width) for y in self.qkv(x).chunk(3, -1))
        memory = torch.einsum("nthd,nthe->nhde", functional.elu(k) + 1, v)
        y = torch.einsum("nthd,nhde->nthe", functional.elu(q) + 1, memory)
        return self.out(self.norm(y).flatten(2))


@tokens
class TokenMixing(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        require(t <= 16)
        hidden = width(rng)
        self.up, self.down = nn.Linear(t, hidden), nn.Linear(hidden, t)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2)


@tokens
class ExtraToken(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        require(t <= 17)
        self.token = nn.Parameter(torch.zeros(1, rng.choice([1, 2]), c))
        self.position = nn.Parameter(torch.zeros(1, t + self.token.shape[1], c))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position


@tokens
class FewerTokens(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        require(t >= 4)
        self.start = rng.randint(0, t - 3)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.start + 3]


@tokens
class LearnedQueries(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(rng.choice([2, 3, 5]), c))

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries.unsqueeze(0).expand(x.shape[0], -1, -1)
        return functional.scaled_dot_product_attention(q, x, x)


@tokens
class UnalignedView(nn.Module):
    """Views that no pair of factors explains: 6 * 4 as 4 * 6."""

    def __init__(self, rng, n, t, c):
        super().__init__()
        self.linear = nn.Linear(c, 24)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = self.linear(x).view(n, t, 6, 4).relu()
        return x.reshape(n, t, 4, 6).transpose(2, 3).reshape(n, t, 24)


@tokens
class UnalignedPieces(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        self.linear = nn.Linear(c, 12)
        self.cuts = rng.choice([[5, 7], [1, 11], [2, 3, 7]])

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = self.linear(x).view(n, t, 3, 4).transpose(2, 3).reshape(n, t, 12)
        return torch.cat(x.split(self.cuts, -1)[::-1], -1)


@tokens
class Recurrence(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        kind = rng.choice([nn.LSTM, nn.GRU])
        self.layer = kind(c, rng.choice([3, 4]), bidirectional=rng.random() < 0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@tokens
class ToImage(nn.Module):
    def __init__(self, rng, n, t, c):
        super().__init__()
        self.height = rng.choice([d for d in range(1, t + 1) if t % d == 0])

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        return x.transpose(1, 2).reshape(n, c, self.height, t // self.height)


# ------------------------------------------------------------------------------------------------------ models


class Head(nn.Module):
    """Flattens or averages, and classifies."""

    def __init__(self, rng: random.Random, x: Tensor) -> None:
        super().__init__()
        self.average = rng.random() < 0.5 or x[0].numel() > 300
        size = x.shape[1 if x.dim() == 4 else -1] if self.average else x[0].numel()
        self.linear = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.average:
            return self.linear(x.mean((2, 3) if x.dim() == 4 else 1))
        return self.linear(x.flatten(1))


def random_model(seed: int, length: int = 5) -> tuple[nn.Module, Tensor]:
    """Return a model of about ``length`` blocks, and an input ``[2, 3, 8, 8]``."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    blocks: list[nn.Module] = [Convolution(rng, *x.shape).double().eval()]
    y = blocks[0](x)
    while len(blocks) < length:
        kinds = BLOCKS_OF_IMAGES if y.dim() == 4 else BLOCKS_OF_TOKENS
        try:
            block = rng.choice(kinds)(rng, *y.shape).double().eval()
        except DoesNotFit:
            continue
        with torch.no_grad():
            result = block(y)
        if result[0].numel() <= 3000:
            blocks.append(block)
            y = result
    blocks.append(Head(rng, y).double())
    model = nn.Sequential(*blocks).eval()
    redraw(model)
    return model, x


def redraw(model: nn.Module) -> None:
    """Draw all parameters and statistics: where they are 0 or 1, a wrong removal could go unnoticed."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            else:
                value.normal_(0, 0.5).add_(0.1)
