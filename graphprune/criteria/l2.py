"""Magnitude: the Euclidean norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprune.criteria.magnitude import Magnitude


@dataclass(frozen=True)
class L2(Magnitude):
    """Euclidean norm of a unit's weights; for a single weight its absolute value."""

    def of_values(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``w²``."""
        return torch.square(values, out=out)

    def finish(self, total: torch.Tensor) -> torch.Tensor:
        """Return the square root, which makes a sum of squares a norm."""
        return total.sqrt()
