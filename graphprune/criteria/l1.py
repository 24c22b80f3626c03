"""Magnitude: the sum of absolute values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprune.criteria.magnitude import Magnitude


@dataclass(frozen=True)
class L1(Magnitude):
    """Absolute values, summed over a unit (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

    def of_values(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``|w|``."""
        return torch.abs(values, out=out)
