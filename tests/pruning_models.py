"""Small models whose dimensions are known, traced once for all tests."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from graphprune.analysis import Analysis, analyze
from graphprune.tracing.trace import trace
from tests.random_models import redraw


class ResidualNet(nn.Module):
    """A stem, one residual block and a classifier, as in ResNet."""

    def __init__(self, stream: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream)
        self.conv1, self.norm1 = nn.Conv2d(stream, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.norm2 = nn.Conv2d(hidden, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream)
        self.head = nn.Linear(stream, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_norm(self.stem(x)))
        y = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(x + self.norm2(self.conv2(y)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Pre-norm attention with one fused projection, as in ViT, and an embedding tied to the output."""

    def __init__(self, heads: int = 3, head_width: int = 4, width: int = 10) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.embedding = nn.Embedding(20, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width)
        self.out = nn.Linear(heads * head_width, width)
        self.up, self.down = nn.Linear(width, 16), nn.Linear(16, width)
        self.logits = nn.Linear(width, 20, bias=False)
        self.logits.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, -1))
        return self.logits(x + self.down(functional.gelu(self.up(x))))


class GroupedAttention(nn.Module):
    """Two key-value heads, each serving three query heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 6, 4).transpose(1, 2)
        k, v = (layer(x).view(n, t, 2, 4).transpose(1, 2) for layer in (self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(n, t, 24))


MODELS = {"residual": ResidualNet, "attention": Attention, "grouped": GroupedAttention}


def inputs(name: str) -> tuple[Tensor, ...]:
    """Return example inputs of a model."""
    generator = torch.Generator().manual_seed(0)
    if name == "residual":
        return (torch.randn(2, 3, 8, 8, generator=generator),)
    if name == "attention":
        return (torch.randint(0, 20, (2, 7), generator=generator),)
    return (torch.randn(2, 5, 8, generator=generator),)


def model(name: str) -> nn.Module:
    """Return a fresh, evaluating model with drawn parameters, the same ones every time."""
    torch.manual_seed(0)
    result = MODELS[name]().eval()
    redraw(result)
    return result


@functools.cache
def traced(name: str) -> fx.GraphModule:
    """Return the traced model; tests must not change it."""
    return trace(model(name), inputs(name))


@functools.cache
def analysis(name: str) -> Analysis:
    """Return the analysis of the traced model."""
    return analyze(traced(name))
