"""Exact parameter and MAC counts of a graph under keep-masks, without rewriting it.

Both are polynomials in the sizes of axes, so a budget search evaluates thousands of candidates a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
from torch import fx

from graphprune.axes import Axis, KeepMasks, Size, multiply
from graphprune.graph import bind_arguments
from graphprune.inference import Typing
from graphprune.rules.context import axes_of
from graphprune.rules.registry import rule_name

Count = Callable[[Axis], Size]


def total_costs(gm: fx.GraphModule, typing: Typing, several: Sequence[KeepMasks]) -> list[dict[str, int]]:
    """Return ``{"parameters": ..., "macs": ...}`` under each of ``several`` masks.

    Multiply-accumulates count linear, convolution, matrix product and attention nodes, for the traced input shapes
    (a dynamic size counts as 1, so a dynamic batch gives MACs for one sample). Tied parameters count once.
    """
    parameters = [parameter_count(gm, typing, masks) for masks in several]
    macs = _mac_counts(gm, typing, several)
    return [{"parameters": p, "macs": m} for p, m in zip(parameters, macs, strict=True)]


def parameter_count(gm: fx.GraphModule, typing: Typing, masks: KeepMasks) -> int:
    """Return the number of elements of all parameters under ``masks``."""
    distinct = {id(axes): axes for path, axes in typing.attributes.items() if path in typing.parameters}
    return sum(_integer(multiply(map(masks.count, axes))) for axes in distinct.values())


def mac_count(gm: fx.GraphModule, typing: Typing, masks: KeepMasks) -> int:
    """Return the number of multiply-accumulates under ``masks``."""
    return _mac_counts(gm, typing, [masks])[0]


def _mac_counts(gm: fx.GraphModule, typing: Typing, several: Sequence[KeepMasks]) -> list[int]:
    totals = [0] * len(several)
    for node in gm.graph.nodes:
        macs = _MACS.get(rule_name(node)) if node.op == "call_function" else None
        if macs is not None:
            arguments = bind_arguments(node)
            for i, masks in enumerate(several):
                totals[i] += _integer(macs(typing, node, arguments, masks.count))
    return totals


def _integer(size: Size) -> int:
    if isinstance(size, sympy.Expr):
        return int(size.subs(dict.fromkeys(size.free_symbols, 1)))  # type: ignore[arg-type]
    return size


def _axes(typing: Typing, node: fx.Node) -> list[Axis]:
    return axes_of(typing.types, node)


def _numel(typing: Typing, node: fx.Node, count: Count) -> Size:
    return multiply(count(axis) for axis in _axes(typing, node))


def _linear(typing: Typing, node: fx.Node, arguments: dict[str, Any], count: Count) -> Size:
    return _numel(typing, node, count) * count(_axes(typing, arguments["weight"])[1])


def _convolution(typing: Typing, node: fx.Node, arguments: dict[str, Any], count: Count) -> Size:
    weight = _axes(typing, arguments["weight"])
    transposed = "transpose" in rule_name(node) or bool(arguments.get("transposed"))
    positions = arguments["input"] if transposed else node
    return _numel(typing, positions, count) * multiply(count(axis) for axis in weight[1:])


def _matmul(typing: Typing, node: fx.Node, arguments: dict[str, Any], count: Count) -> Size:
    first = next(arguments[name] for name in ("mat1", "batch1", "self") if name in arguments)
    return _numel(typing, node, count) * count(_axes(typing, first)[-1])


def _einsum(typing: Typing, node: fx.Node, arguments: dict[str, Any], count: Count) -> Size:
    inputs, _, output = arguments["equation"].replace(" ", "").partition("->")
    summed: dict[str, Size] = {}
    for term, operand in zip(inputs.split(","), arguments["tensors"], strict=True):
        before, _, after = term.partition("...")
        axes = _axes(typing, operand)
        named = [*zip(before, axes, strict=False), *zip(after[::-1], axes[::-1], strict=False)]
        summed |= {letter: count(axis) for letter, axis in named if letter not in output}
    return _numel(typing, node, count) * multiply(summed.values())


def _attention(typing: Typing, node: fx.Node, arguments: dict[str, Any], count: Count) -> Size:
    query, key = _axes(typing, arguments["query"]), _axes(typing, arguments["key"])
    scores = multiply(count(axis) for axis in query[:-1]) * count(key[-2])
    return scores * count(query[-1]) + _numel(typing, node, count) * count(key[-2])


_MACS: dict[str, Callable[[Any, fx.Node, dict[str, Any], Count], Size]] = {
    "aten::linear": _linear,
    "aten::matmul": _matmul,
    "aten::mm": _matmul,
    "aten::bmm": _matmul,
    "aten::addmm": _matmul,
    "aten::baddbmm": _matmul,
    "aten::einsum": _einsum,
    "aten::convolution": _convolution,
    "aten::scaled_dot_product_attention": _attention,
    **{f"aten::conv{rank}d": _convolution for rank in (1, 2, 3)},
    **{f"aten::conv_transpose{rank}d": _convolution for rank in (1, 2, 3)},
}
