"""What the networks share: their table, inputs, and the usual convolution block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NETWORKS: dict[str, type[nn.Module]] = {}


def network(cls: type[nn.Module]) -> type[nn.Module]:
    """Enter a class that needs no arguments to build and has ``inputs``."""
    NETWORKS[cls.__name__] = cls
    return cls


def image(channels: int = 3, size: int = 8) -> tuple[Tensor, ...]:
    """Return one positional input: two images."""
    return (torch.randn(2, channels, size, size),)


def rows(width: int = 6) -> tuple[Tensor, ...]:
    """Return one positional input: two vectors."""
    return (torch.randn(2, width),)


def tokens(width: int = 8, length: int = 5) -> tuple[Tensor, ...]:
    """Return one positional input: two sequences of vectors."""
    return (torch.randn(2, length, width),)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """Return convolution, batch norm and ReLU."""
    padding = options.pop("padding", kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """Base: one image as input."""

    inputs: Callable[[], tuple[Any, ...]] = staticmethod(image)
