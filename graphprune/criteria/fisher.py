"""Diagonal second-order saliency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.calibration import mean_gradients
from graphprune.criteria.base import LossCriterion, parameter_values


@dataclass(frozen=True)
class Fisher(LossCriterion):
    """Optimal-brain-damage saliency ``½ · h · w²`` (LeCun et al. 1989).

    For the Hessian's diagonal ``h`` stands that of the empirical Fisher matrix: the mean over batches of the squared
    gradient. Small batches estimate it better; with a batch of one it is the empirical Fisher proper.
    """

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``½ · mean(g²) · w²``."""
        floating = sorted(self.scored(gm, parameters), key=list(parameters).index)
        curvature = mean_gradients(
            gm, floating, self.data, self.loss, batches=self.batches, transform=torch.Tensor.square
        )
        values = parameter_values(gm, parameters)
        return {p: value.square() * curvature[p] / 2 if p in curvature else value for p, value in values.items()}
