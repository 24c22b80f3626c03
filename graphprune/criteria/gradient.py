"""Connection sensitivity, SNIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.calibration import mean_gradients
from graphprune.criteria.base import LossCriterion, parameter_values


@dataclass(frozen=True)
class Gradient(LossCriterion):
    """Connection sensitivity ``|w · g|`` (Lee et al. 2019, "SNIP"), summed without sign over a unit.

    ``g`` is the mean gradient over the batches. Made for pruning at initialisation; one batch is customary.
    """

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``|w · g|``."""
        floating = sorted(self.scored(gm, parameters), key=list(parameters).index)
        gradients = mean_gradients(gm, floating, self.data, self.loss, batches=self.batches)
        values = parameter_values(gm, parameters)
        return {p: (value * gradients[p]).abs() if p in gradients else value for p, value in values.items()}
