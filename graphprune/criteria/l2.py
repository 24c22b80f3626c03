"""Magnitude: the Euclidean norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import Criterion, parameter_values


@dataclass(frozen=True)
class L2(Criterion):
    """Euclidean norm of a unit's weights; for a single weight its absolute value."""

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``w²``."""
        return {path: value.square() for path, value in parameter_values(gm, parameters).items()}

    def finish(self, total: torch.Tensor) -> torch.Tensor:
        """Return the square root, which makes a sum of squares a norm."""
        return total.sqrt()
