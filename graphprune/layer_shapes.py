"""The distinct shapes of a model's convolutions and linear layers: what is worth measuring once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerShape:
    """Everything that the time of a fused layer depends on, apart from its zeros.

    Attributes:
        kind: "linear" or "conv2d".
        weight: the weight's shape.
        x: the input's shape.
        bias, residual, activation: the epilogue, see ``graphprune.ops``.
        stride, padding, dilation, groups: of a convolution.
    """

    kind: str
    weight: tuple[int, ...]
    x: tuple[int, ...]
    bias: bool = False
    residual: bool = False
    activation: str = "none"
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def output(self) -> tuple[int, ...]:
        """The output's shape."""
        if self.kind == "linear":
            return (*self.x[:-1], self.weight[0])
        sizes = zip(self.x[2:], self.weight[2:], self.stride, self.padding, self.dilation)
        plane = ((size + 2 * pad - spread * (window - 1) - 1) // step + 1 for size, window, step, pad, spread in sizes)
        return (self.x[0], self.weight[0], *plane)

    @property
    def macs(self) -> int:
        """Multiply-accumulates with a dense weight."""
        return math.prod(self.output) * math.prod(self.weight[1:])

    @property
    def weight_count(self) -> int:
        """Entries of the weight."""
        return math.prod(self.weight)

    def as_dict(self) -> dict[str, Any]:
        """Return the shape as JSON data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerShape:
        """Return the shape that :meth:`as_dict` described."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**arguments)

    def __str__(self) -> str:
        """Return ``3x3 conv 64 -> 128 @ 56x56 /2`` or ``linear 768 -> 3072 @ 128``."""
        if self.kind == "linear":
            return f"linear {self.weight[1]} -> {self.weight[0]} @ {math.prod(self.x[:-1])}"
        window = "x".join(str(size) for size in self.weight[2:])
        plane = "x".join(str(size) for size in self.x[2:])
        batch = f" x{self.x[0]}" if self.x[0] > 1 else ""
        step = f" /{self.stride[0]}" if self.stride != (1, 1) else ""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{window} conv {self.x[1]} -> {self.weight[0]} @ {plane}{batch}{step}{groups}"
