"""First-order Taylor expansion of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.calibration import mean_gradients
from graphprune.criteria.base import LossCriterion, parameter_values


@dataclass(frozen=True)
class Taylor(LossCriterion):
    """To first order, how much the loss changes when a unit's weights all become zero: ``|Σ w · g|``.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning". ``g`` is the mean gradient over the
    batches. Within a unit the terms keep their sign, since the weights of a unit leave together.
    """

    signed = True

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``w · g``, signed."""
        floating = sorted(self.scored(gm, parameters), key=list(parameters).index)
        gradients = mean_gradients(gm, floating, self.data, self.loss, batches=self.batches)
        values = parameter_values(gm, parameters)
        return {path: value * gradients[path] if path in gradients else value for path, value in values.items()}

    def finish(self, total: torch.Tensor) -> torch.Tensor:
        """Return the absolute value of the sum."""
        return total.abs()
