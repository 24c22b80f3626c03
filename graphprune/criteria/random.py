"""The baseline every criterion has to beat."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import Criterion
from graphprune.graph import get_attribute


@dataclass(frozen=True)
class Random(Criterion):
    """Independent uniform numbers; the same for the same seed, parameter path and shape, whatever else is scored.

    Attributes:
        seed: any integer.
    """

    seed: int = 0

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return uniform numbers in [0, 1); the global random state is not touched."""
        return {path: self._draw(path, get_attribute(gm, path)) for path in parameters}

    def _draw(self, path: str, parameter: torch.Tensor) -> torch.Tensor:
        if not parameter.is_floating_point():
            return torch.zeros(parameter.shape)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}:{path}".encode()))
        device = "cpu" if parameter.is_meta else parameter.device
        return torch.rand(parameter.shape, generator=generator).to(device)
