"""Weights and activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.calibration import feature_norms
from graphprune.criteria.base import DataCriterion, parameter_values
from graphprune.graph import get_attribute
from graphprune.sparsity.weights import WeightUse, weight_uses


@dataclass(frozen=True)
class Wanda(DataCriterion):
    """``|w| · ‖x‖``, the weight times the norm of the input feature that it reads (Sun et al. 2023, "Wanda").

    The norm runs over all positions of all batches; for a convolution it is that of the input channel. A weight used in
    several places takes its inputs from all of them. Parameters that are not weights of linears, convolutions or
    matrix products are not scored. The paper compares weights within an output row: use ``scope="row"``.
    """

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``|w| · ‖x‖`` for weights and zeros for all else."""
        wanted = {id(get_attribute(gm, path)) for path in self.scored(gm, parameters)}
        uses = [use for use in weight_uses(gm) if id(get_attribute(gm, use.path)) in wanted]
        observed = {(use.activation, use.activation_axis) for use in uses}
        norms = feature_norms(gm, observed, self.data, batches=self.batches) if observed else {}
        squares: dict[int, torch.Tensor] = {}
        for use in uses:
            weight = get_attribute(gm, use.path)
            square = _over_weight(use, norms[use.activation, use.activation_axis].square(), weight)
            squares[id(weight)] = squares.get(id(weight), torch.zeros_like(square)) + square
        values = parameter_values(gm, parameters)
        return {
            path: value.abs() * squares[key].sqrt().to(value.device) if (key := id(get_attribute(gm, path))) in squares
            else torch.zeros_like(value)
            for path, value in values.items()
        }  # fmt: skip

    def scored(self, gm: fx.GraphModule, parameters: Sequence[str]) -> frozenset[str]:
        """Return those of ``parameters`` that are weights of linears, convolutions or matrix products."""
        weights = {id(get_attribute(gm, use.path)) for use in weight_uses(gm)}
        return frozenset(path for path in parameters if id(get_attribute(gm, path)) in weights)


def _over_weight(use: WeightUse, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return one number for each input feature as a tensor that broadcasts to the weight's shape."""
    if use.groups == 1 or use.kind == "conv_transpose":
        shape = [1] * weight.dim()
        shape[use.input_axis] = -1
        return features.reshape(shape)
    outputs, inputs = weight.shape[:2]
    rows = features.reshape(use.groups, 1, inputs).expand(-1, outputs // use.groups, -1)
    return rows.reshape(outputs, inputs, *[1] * (weight.dim() - 2))
