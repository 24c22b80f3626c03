"""Computes ahead of time what does not depend on the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.errors import PassError
from graphprune.graph import get_attribute, prune_unused_attributes, set_attribute
from graphprune.pass_base import Pass
from graphprune.propagation import propagate_fake


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replaces every value that only depends on parameters, buffers and constants by a buffer.

    Position indices, causal masks and weights that are computed in the graph (normalised, transposed) are the usual
    cases. The graph can no longer be trained through such a weight, so this is for compilation.

    Attributes:
        max_elements: larger values are left to be computed at run time.
    """

    max_elements: int = 1 << 24

    def __post_init__(self) -> None:
        if self.max_elements < 0:
            raise PassError(f"max_elements must not be negative, got {self.max_elements}")

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Fold; the summary names the values that became buffers."""
        values = _constant_values(gm)
        folded = [node for node in values if node.op == "call_function" and self._is_worthwhile(node, values)]
        for node in folded:
            _replace(gm, node, values[node])
        gm.graph.eliminate_dead_code()
        prune_unused_attributes(gm)
        propagate_fake(gm)
        return gm, {"folded": [node.name for node in folded]}

    def _is_worthwhile(self, node: fx.Node, values: dict[fx.Node, Any]) -> bool:
        """Say whether something that is computed at run time reads this constant tensor."""
        value = values[node]
        if not isinstance(value, torch.Tensor) or value.numel() > self.max_elements:
            return False
        readers = [user for user in node.users if user not in values]
        return bool(readers) and all(user.op != "output" for user in readers)


def _constant_values(gm: fx.GraphModule) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            value = get_attribute(gm, str(node.target))
            if isinstance(value, torch.Tensor):
                values[node] = value
        elif _is_pure(node) and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda source: values[source])
            values[node] = node.target(*args, **kwargs)
    return values


def _is_pure(node: fx.Node) -> bool:
    if node.op != "call_function" or not callable(node.target):
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", "") == "getitem"
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    return not random and not node.target._schema.is_mutable and node.target.namespace == "aten"


def _replace(gm: fx.GraphModule, node: fx.Node, value: torch.Tensor) -> None:
    path = f"constant_{node.name}"
    set_attribute(gm, path, value.detach().clone(memory_format=torch.contiguous_format))
    with gm.graph.inserting_before(node):
        constant = gm.graph.get_attr(path)
    constant.meta = {"val": get_attribute(gm, path)}
    node.replace_all_uses_with(constant)
