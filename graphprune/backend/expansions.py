"""Which 1x1 convolutions are computed inside the depthwise convolution that follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import fx

from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels import Kernel


@dataclass(frozen=True)
class Expansions:
    """The depthwise convolutions whose kernel computes the 1x1 convolution before them too, with that kernel."""

    kernels: Mapping[fx.Node, Kernel] = field(default_factory=dict)

    @cached_property
    def inside(self) -> set[fx.Node]:
        """The 1x1 convolutions: they have no value of their own."""
        return {bind_arguments(node)["x"] for node in self.kernels}
