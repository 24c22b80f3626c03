"""Evenly spaced units, for models without values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import Criterion
from graphprune.graph import get_attribute


@dataclass(frozen=True)
class Even(Criterion):
    """Keeps units at even distances, whatever their weights: the one criterion for models on the meta device.

    Meant for questions about sizes (how large, how fast would the model be), not for accuracy. Every share of the units
    that is kept is spread over the whole dimension: positions are ranked by the van der Corput sequence.
    """

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ones, of which all have equal claims, without allocating them (stride 0)."""
        return {path: torch.ones(()).expand(get_attribute(gm, path).shape) for path in parameters}

    def by_position(self, size: int) -> torch.Tensor:
        """Return 1 for the first position, ½ for the middle one, ¼ and ⅛ ... for those between."""
        positions = torch.arange(size)
        reversed_bits = torch.zeros_like(positions)
        for _ in range(max(size - 1, 1).bit_length()):
            reversed_bits = reversed_bits << 1 | positions & 1
            positions = positions >> 1
        ranks = torch.empty(size, dtype=torch.float64)
        ranks[reversed_bits.argsort()] = torch.arange(size, 0, -1, dtype=torch.float64) / size
        return ranks
