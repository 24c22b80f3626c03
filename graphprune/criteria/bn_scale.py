"""Batch norm's scales as channel importances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import Criterion, parameter_values
from graphprune.graph import bind_arguments, get_attribute, op_name


@dataclass(frozen=True)
class BNScale(Criterion):
    """Absolute batch-norm scales (Liu et al. 2017, "Network Slimming"); other parameters are not scored.

    The scales are found in the graph: the ``weight`` operands of batch-norm nodes.
    """

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return ``|gamma|`` for batch-norm scales and zeros for all else."""
        scales = self.scored(gm, parameters)
        values = parameter_values(gm, parameters)
        return {path: value.abs() if path in scales else torch.zeros_like(value) for path, value in values.items()}

    def scored(self, gm: fx.GraphModule, parameters: Sequence[str]) -> frozenset[str]:
        """Return those of ``parameters`` that scale the output of a batch norm."""
        scales = set()
        for node in gm.graph.nodes:
            if op_name(node) == "batch_norm":
                weight = bind_arguments(node)["weight"]
                if isinstance(weight, fx.Node) and weight.op == "get_attr":
                    scales.add(id(get_attribute(gm, str(weight.target))))
        return frozenset(path for path in parameters if id(get_attribute(gm, path)) in scales)
