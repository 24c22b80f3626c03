"""Reductions: the reduced axes vanish; whether they may shrink depends on what zeros do to the result."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.axes import Axis
from graphprune.rules.context import Inference, MaskedInputs, Typed, dimensions, shape_of, tensor_nodes
from graphprune.rules.pointwise import element_wise
from graphprune.rules.registry import Arguments, masked, rule

STATISTICS = ("mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "logsumexp")


def _input(context: Inference, arguments: Arguments) -> list[Axis]:
    return context.axes(arguments["self"] if "self" in arguments else arguments["input"])


def _reduce(context: Inference, node: fx.Node, arguments: Arguments) -> tuple[list[Axis], Typed]:
    """Return the reduced axes and the types of the result."""
    axes = _input(context, arguments)
    reduced = dimensions(arguments.get("dim"), len(axes))
    keep = arguments.get("keepdim", False)
    result = [
        context.solver.leaf(1) if d in reduced else axis for d, axis in enumerate(axes) if keep or d not in reduced
    ]
    typed: Typed = [result for _ in node.meta["val"]] if isinstance(node.meta["val"], (tuple, list)) else result
    return [axes[d] for d in reduced], typed


@rule("sum", "count_nonzero", "nansum")
def neutral(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (zeros add nothing)"""
    return _reduce(context, node, arguments)[1]


@rule("linalg_vector_norm", "norm")
def norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (order 1 and 2: zeros add nothing; other orders pin r)"""
    order = arguments["ord"] if "ord" in arguments else arguments.get("p")
    reduced, typed = _reduce(context, node, arguments)
    if order not in (None, 1, 2):
        context.pin_all(reduced, f"norm of order {order}")
    return typed


@rule(*STATISTICS)
def statistic(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (statistic over r)"""
    reduced, typed = _reduce(context, node, arguments)
    context.statistic(node, reduced)
    return typed


@masked(*STATISTICS)
def masked_statistic(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    operand = node.args[0]
    assert isinstance(operand, fx.Node) and callable(node.target)
    return node.target(inputs.kept(operand), *node.args[1:], **node.kwargs)


@rule("max", "min")
def extremum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R ... -> ... ... (pinned: positions are returned, or zeros could win); two tensors: element-wise"""
    if len(tensor_nodes(arguments.values())) > 1:
        return element_wise(context, node, arguments)
    return _pinning(context, node, arguments)


@rule("any", "all", "argmax", "argmin", "prod", "median", "mode", "kthvalue")
def pinned_reduction(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R ... -> ... ... (the reduced axis is pinned)"""
    return _pinning(context, node, arguments)


def _pinning(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    reduced, typed = _reduce(context, node, arguments)
    context.pin_all(reduced, f"reduced by {node.target}")
    return typed


@rule("topk", "sort", "argsort")
def ordering(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... K ... (pinned along the axis that is ordered)"""
    axes = context.axes(arguments["self"])
    value = node.meta["val"]
    first = value[0] if isinstance(value, (tuple, list)) else value
    d = arguments["dim"] % len(axes)
    context.pin(axes[d], f"ordered by {node.target}")
    axes[d] = context.solver.pinned(shape_of(first)[d], f"ordered by {node.target}")
    return [axes for _ in value] if isinstance(value, (tuple, list)) else axes


@rule("tril", "triu")
def triangle(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R C -> ... R C (both axes of the triangle are pinned)"""
    axes = context.axes(arguments["self"])
    context.pin_all(axes[-2:], "row and column positions matter")
    return axes


@rule("diff")
def difference(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S' ... (neighbours matter: pinned, as are pieces put before and after)"""
    operands = [context.axes(operand) for operand in tensor_nodes(arguments.values())]
    axes = operands[0]
    d = arguments["dim"] % len(axes)
    for others in operands[1:]:
        for i, (a, b) in enumerate(zip(axes, others, strict=True)):
            if i != d:
                context.unify(a, b)
    context.pin_all([operand[d] for operand in operands], "differences of neighbours")
    axes[d] = context.solver.pinned(shape_of(node.meta["val"])[d], "differences of neighbours")
    return axes
