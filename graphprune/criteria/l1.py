"""Magnitude: the sum of absolute values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import Criterion, parameter_values


@dataclass(frozen=True)
class L1(Criterion):
    """Absolute values, summed over a unit (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``|w|``."""
        return {path: value.abs() for path, value in parameter_values(gm, parameters).items()}
