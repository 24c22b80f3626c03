"""Values of nodes that depend on buffers and numbers alone: index tables, ranges, and what is computed from them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from graphprune.graph import get_attribute

MAX_ELEMENTS = 2**22
"""Larger values are not computed: an index that selects channels is never that long."""


class ConstantValues:
    """Computes constant values of a graph on demand, each one once.

    Parameters are not constant (training changes them), nor are buffers that the graph writes to, random numbers, or
    anything on the meta device.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self._gm = gm
        self._found: dict[fx.Node, Any] = {}

    def __call__(self, node: fx.Node) -> torch.Tensor | None:
        """Return the value of ``node``, to be read only, or None if it is no constant tensor."""
        value = self._evaluate(node)
        return value if isinstance(value, torch.Tensor) else None

    def _evaluate(self, node: fx.Node) -> Any:
        if node not in self._found:
            self._found[node] = None
            with torch.no_grad():
                self._found[node] = self._compute(node)
        return self._found[node]

    def _compute(self, node: fx.Node) -> Any:
        if not _is_small(node):
            return None
        if node.op == "get_attr":
            value = get_attribute(self._gm, str(node.target))
            fixed = isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter) and not value.is_meta
            return value if fixed and not any(_writes_to(user, node) for user in node.users) else None
        if node.op != "call_function" or not _is_function_of_inputs(node):
            return None
        operands = {operand: self._evaluate(operand) for operand in node.all_input_nodes}
        if any(value is None for value in operands.values()):
            return None
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda operand: operands[operand])
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _is_small(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return all(
        isinstance(item, torch.Tensor)
        and all(isinstance(size, int) for size in item.shape)
        and item.numel() <= MAX_ELEMENTS
        and not item.is_meta
        for item in values
    )


def _is_function_of_inputs(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and not node.target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in node.target.tags
        and not _is_uninitialized(node)
    )


def _is_uninitialized(node: fx.Node) -> bool:
    return "empty" in str(node.target)


def _writes_to(user: fx.Node, operand: fx.Node) -> bool:
    schema = getattr(user.target, "_schema", None)
    return schema is not None and schema.is_mutable and bool(user.args) and user.args[0] is operand
