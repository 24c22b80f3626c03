"""Finds what a graph computes whatever its inputs: which elements of which values are constant, and their values.

The graph runs once on abstract values: tensors of the traced shapes in which NaN means "depends on the input". Ops
that are not listed here give NaN throughout, so everything found constant is constant.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprune.graph import bind_arguments, graph_info, op_name
from graphprune.rules.context import tensor_nodes

UNKNOWN = float("nan")

_POINTWISE = frozenset(
    """relu relu6 gelu silu mish hardtanh hardswish hardsigmoid leaky_relu elu celu selu softplus sigmoid tanh exp neg
    abs sin cos erf clone contiguous dropout feature_dropout clamp clamp_min clamp_max""".split()
)
_ARITHMETIC = frozenset("add sub rsub div true_divide".split())
_REARRANGING = frozenset(
    """view reshape _unsafe_view flatten unflatten permute transpose t movedim unsqueeze squeeze expand slice select
    narrow split split_with_sizes chunk unbind cat stack pad constant_pad_nd roll repeat repeat_interleave pixel_shuffle
    pixel_unshuffle channel_shuffle""".split()
)
_SPATIAL = frozenset(
    f"{name}{rank}d" for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "upsample_nearest") for rank in (1, 2, 3)
) | {"mean", "sum", "upsample_bilinear2d"}
_CONVOLUTIONS = frozenset(f"conv{rank}d" for rank in (1, 2, 3))

AbstractValues = Mapping[fx.Node, torch.Tensor | None]


def constant_elements(gm: fx.GraphModule) -> AbstractValues:
    """Return, for each node with one floating tensor, a tensor of its constant elements, NaN where not constant.

    Nodes with other values map to None. Batch norm must be in evaluation mode to count as constant.
    """
    interpreter = _ConstantInterpreter(gm)
    args, kwargs = graph_info(gm).example_args, graph_info(gm).example_kwargs
    flat = pytree.tree_leaves((args, kwargs))
    with torch.no_grad():
        interpreter.run(*flat, enable_io_processing=False)
    return interpreter.found


class _ConstantInterpreter(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.found: dict[fx.Node, torch.Tensor | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = self._evaluate(n)
        self.found[n] = value if isinstance(value, torch.Tensor) and value.is_floating_point() else None
        return value

    def _evaluate(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return _all_unknown(super().run_node(n))
        if n.op in ("get_attr", "output"):
            return super().run_node(n)
        operands = [self.env[operand] for operand in n.all_input_nodes]
        if any(operand is None for operand in operands):
            return self._unknown_result(n)
        floats = [o for o in operands if isinstance(o, torch.Tensor) and o.is_floating_point()]
        if all(not torch.isnan(o).any() for o in floats) and len(floats) == len(operands):
            return super().run_node(n)
        return self._propagate(n)

    def _unknown_result(self, n: fx.Node) -> Any:
        """Return an unknown value of the node's shape; None stands for values that cannot hold NaN."""
        value = n.meta.get("val")
        if isinstance(value, (tuple, list)):
            return tuple(_unknown_like(item) for item in value)
        return _unknown_like(value)

    def _propagate(self, n: fx.Node) -> Any:
        name = op_name(n)
        if name in _POINTWISE and len(tensor_nodes(n.args)) == 1:
            result = super().run_node(n)
            return result.masked_fill(torch.isnan(self.env[n.all_input_nodes[0]]), UNKNOWN)
        if name in _ARITHMETIC or name in _REARRANGING or name in _SPATIAL or n.target is operator.getitem:
            return super().run_node(n)
        if name in ("mul", "multiply"):
            return self._multiply(n)
        if name == "batch_norm":
            return self._batch_norm(n)
        if name == "linear" or name in _CONVOLUTIONS:
            return self._contract(n)
        return self._unknown_result(n)

    def _multiply(self, n: fx.Node) -> Any:
        product = super().run_node(n)
        for operand in tensor_nodes(n.args):
            product = torch.where(self.env[operand] == 0, torch.zeros_like(product), product)
        return product

    def _batch_norm(self, n: fx.Node) -> Any:
        arguments = bind_arguments(n)
        if arguments["training"]:
            return self._unknown_result(n)
        result = super().run_node(n)
        if arguments["weight"] is None or arguments["bias"] is None:
            return result
        shape = [1, -1, *[1] * (result.dim() - 2)]
        scale, shift = (self.env[arguments[name]].view(shape) for name in ("weight", "bias"))
        return torch.where(scale == 0, shift.expand_as(result), result)

    def _contract(self, n: fx.Node) -> Any:
        """An output is constant if every input that a non-zero weight reads is."""
        arguments = bind_arguments(n)
        x, weight = self.env[arguments["input"]], self.env[arguments["weight"]]
        if torch.isnan(weight).any():
            return self._unknown_result(n)
        names = [a.name for a in n.target._schema.arguments]  # type: ignore[union-attr]
        known = {name: self.env[v] if isinstance(v, fx.Node) else v for name, v in arguments.items()}

        def call(values: dict[str, Any]) -> torch.Tensor:
            return n.target(*[values[name] for name in names])  # type: ignore[operator]

        result = call(known | {"input": torch.nan_to_num(x, nan=0.0)})
        reads = call(known | {"input": torch.isnan(x).to(x.dtype), "weight": (weight != 0).to(x.dtype), "bias": None})
        return result.masked_fill(reads > 0, UNKNOWN)


def _all_unknown(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.full_like(value, UNKNOWN)
    return None


def _unknown_like(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.full([int(size) for size in value.shape], UNKNOWN, dtype=value.dtype)
    return None
