"""Reductions: the reduced axes vanish; whether they may shrink depends on what zeros do to the result."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.axes import Axis
from graphprune.rules.context import Inference, MaskedInputs, Typed, dimensions, flatten, is_one, shape_of, tensor_nodes
from graphprune.rules.registry import Arguments, masked, rule

STATISTICS = "mean nanmean var std var_mean std_mean amax amin aminmax logsumexp special_logsumexp".split()


def _input(context: Inference, arguments: Arguments) -> list[Axis]:
    names = ("self", "input", "A")
    return context.axes(next(arguments[name] for name in names if name in arguments))


def reduce_axes(context: Inference, node: fx.Node, arguments: Arguments) -> tuple[list[Axis], Typed]:
    """Return the reduced axes and the types of the result."""
    axes = _input(context, arguments)
    reduced = dimensions(arguments.get("dim"), len(axes))
    keep = arguments.get("keepdim", False)
    result = [
        context.solver.leaf(1) if d in reduced else axis for d, axis in enumerate(axes) if keep or d not in reduced
    ]
    typed: Typed = [result for _ in node.meta["val"]] if isinstance(node.meta["val"], (tuple, list)) else result
    return [axes[d] for d in reduced], typed


@rule("sum", "count_nonzero", "nansum", "any")
def neutral(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (zeros add nothing)"""
    return reduce_axes(context, node, arguments)[1]


@rule("linalg_vector_norm", "norm", "frobenius_norm", "linalg_norm", "linalg_matrix_norm", "nuclear_norm")
def norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (zeros add nothing, nor do rows and columns of zeros; negative orders pin r)"""
    reduced, typed = reduce_axes(context, node, arguments)
    order = arguments["ord"] if "ord" in arguments else arguments.get("p")
    _pin_negative_order(context, reduced, None if isinstance(order, str) else order)
    return typed


def _pin_negative_order(context: Inference, axes: list[Axis], order: Any) -> None:
    if order is not None and order < 0:
        context.pin_all(axes, f"norm of order {order}")


@rule("dist")
def distance(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """r ..., r ... -> (zeros add nothing; negative orders and broadcasting pin r)"""
    operands = [context.axes(operand) for operand in tensor_nodes(arguments.values())]
    difference = context.broadcast(operands, max(len(axes) for axes in operands))
    _pin_negative_order(context, difference, arguments["p"])
    for d, axis in enumerate(reversed(difference)):
        _pin_if_broadcast(context, axis, operands, -1 - d)
    return []


def _pin_if_broadcast(context: Inference, axis: Axis, operands: list[list[Axis]], dim: int) -> None:
    """Pin an axis along which some operand is repeated: it would count where the other is removed."""
    if any(len(axes) < -dim or is_one(axes[dim]) for axes in operands):
        context.pin(axis, "broadcast along a reduced axis")


@rule("cdist", "_cdist_forward", "_euclidean_dist")
def pairwise_distances(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... p r, ... q r -> ... p q (zeros add nothing)"""
    first, second = (context.axes(arguments[name]) for name in ("x1", "x2"))
    context.unify(first[-1], second[-1])
    batch = context.broadcast([first[:-2], second[:-2]], len(shape_of(node.meta["val"])) - 2)
    return [*batch, first[-2], second[-2]]


@rule("pdist", "_pdist_forward")
def distances_of_pairs(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """N r -> P (rows are paired by position: pinned; zeros add nothing)"""
    rows, _ = context.axes(arguments["self"])
    context.pin(rows, "paired by position")
    return context.constant(node.meta["val"], "paired by position")


@rule("linalg_vecdot")
def dot_of_vectors(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ..., ... r ... -> ... ... (zeros add nothing)"""
    return _reduce_pair(context, arguments)[1]


@rule("cosine_similarity")
def cosine_similarity(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ..., ... r ... -> ... ... (zeros add nothing; broadcasting pins r)"""
    reduced, result = _reduce_pair(context, arguments)
    operands = [context.axes(arguments[name]) for name in ("x1", "x2")]
    dim = arguments["dim"] if arguments["dim"] < 0 else arguments["dim"] - len(result) - 1
    _pin_if_broadcast(context, reduced, operands, dim)
    return result


@rule("pairwise_distance")
def pairwise_distance(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r, ... r -> ... (statistic over r: a small constant is added to every difference)"""
    reduced, result = _reduce_pair(context, arguments | {"dim": -1})
    context.statistic(node, [reduced])
    return [*result, context.solver.leaf(1)] if arguments["keepdim"] else result


def _reduce_pair(context: Inference, arguments: Arguments) -> tuple[Axis, list[Axis]]:
    """Broadcast two operands and return the axis ``dim`` and the rest."""
    first, second = (context.axes(operand) for operand in tensor_nodes(arguments.values()))
    axes = context.broadcast([first, second], max(len(first), len(second)))
    reduced = axes.pop(arguments["dim"])
    return reduced, axes


@masked("pairwise_distance")
def masked_pairwise_distance(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    return inputs.call(node)


@rule(*STATISTICS)
def statistic(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... r ... -> ... ... (statistic over r)"""
    reduced, typed = reduce_axes(context, node, arguments)
    context.statistic(node, reduced)
    return typed


@masked(*STATISTICS)
def masked_statistic(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    return inputs.call(node)


@rule("all", "prod", "median", "nanmedian", "mode", "kthvalue")
def pinned_reduction(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R ... -> ... ... (the reduced axis is pinned)"""
    return _pinning(context, node, arguments)


def _pinning(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    reduced, typed = reduce_axes(context, node, arguments)
    context.pin_all(reduced, f"reduced by {node.target}")
    return typed


@rule("quantile", "nanquantile")
def quantile(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R ..., Q -> Q ... ... (the reduced axis is pinned)"""
    reduced, typed = reduce_axes(context, node, arguments)
    context.pin_all(reduced, f"reduced by {node.target}")
    quantiles = context.axes(arguments["q"]) if isinstance(arguments["q"], fx.Node) else []
    return [*quantiles, *flatten(typed)]


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
