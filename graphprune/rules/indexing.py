"""Look-ups by value: the axis that is looked into is pinned, everything else passes."""

from __future__ import annotations

import torch
from torch import fx

from graphprune.axes import Axis, size_of
from graphprune.rules.context import Inference, Typed, is_tensor_node, shape_of, tensor_nodes
from graphprune.rules.registry import Arguments, rule

LOOKED_UP = "looked up by value"


@rule("embedding")
def embedding(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """V c, ... -> ... c (the vocabulary is pinned)"""
    vocabulary, width = context.axes(arguments["weight"])
    context.pin(vocabulary, LOOKED_UP)
    return [*context.axes(arguments["indices"]), width]


@rule("index", "index_put", "_unsafe_index", "_unsafe_index_put")
def index(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """x[..., i, ...]: indexed axes are pinned, index axes take their place"""
    axes, indices = context.axes(arguments["self"]), list(arguments["indices"])
    tensors = [value for value in indices if value is not None]
    if any(tensor.meta["val"].dtype in (torch.bool, torch.uint8) for tensor in tensors):
        return _boolean_index(context, node, arguments, axes, tensors)
    positions = [i for i, value in enumerate(indices) if value is not None]
    for i in positions:
        context.pin(axes[i], LOOKED_UP)
    operands = [context.axes(tensor) for tensor in tensors]
    batch = context.broadcast(operands, max(len(operand) for operand in operands))
    rest = [axis for i, axis in enumerate(axes) if i not in positions]
    adjacent = positions == list(range(positions[0], positions[-1] + 1))
    start = positions[0] if adjacent else 0
    result = [*rest[:start], *batch, *rest[start:]]
    if "values" in arguments:
        context.pin_all(batch, "written to by value")
        context.broadcast([result, context.axes(arguments["values"])], len(result))
        return axes
    return result


def _boolean_index(
    context: Inference, node: fx.Node, arguments: Arguments, axes: list[Axis], tensors: list[fx.Node]
) -> Typed:
    reason = "indexed by a boolean tensor"
    context.pin_all(axes, reason)
    for tensor in tensors:
        context.pin_all(context.axes(tensor), reason)
    if "values" in arguments:
        context.pin_all(context.axes(arguments["values"]), reason)
        return axes
    return context.constant(node.meta["val"], reason)


@rule("index_select")
def index_select(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... , i -> ... i ... (the axis that is looked into is pinned)"""
    axes = context.axes(arguments["self"])
    context.pin(axes[arguments["dim"]], LOOKED_UP)
    (axes[arguments["dim"]],) = context.axes(arguments["index"])
    return axes


@rule("gather", "take_along_dim")
def gather(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ..., ... I ... -> ... I ... (the gathered axis is pinned, the others are shared)"""
    index_node = arguments["index"] if "index" in arguments else arguments["indices"]
    axes, indices = context.axes(arguments["self"]), context.axes(index_node)
    _share(context, axes, [indices], arguments["dim"] % len(axes))
    return indices


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ..., ... I ..., ... I ... -> ... S ... (the scattered axis is pinned, the others are shared)"""
    axes = context.axes(arguments["self"])
    others = [context.axes(operand) for operand in tensor_nodes([arguments["index"], arguments.get("src")])]
    _share(context, axes, others, arguments["dim"] % len(axes))
    return axes


def _share(context: Inference, axes: list[Axis], others: list[list[Axis]], dim: int) -> None:
    """Pin position ``dim`` everywhere; unify the other positions where sizes agree, pin them where they do not."""
    for other in others:
        for d, (a, b) in enumerate(zip(axes, other, strict=True)):
            if d == dim or size_of(a) != size_of(b):
                context.pin(a, LOOKED_UP)
                context.pin(b, LOOKED_UP)
            else:
                context.unify(a, b)


@rule("slice_scatter", "select_scatter")
def write_piece(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (the axis written into is pinned, the others are shared)"""
    axes, source = context.axes(arguments["self"]), context.axes(arguments["src"])
    d = arguments["dim"] % len(axes)
    context.pin(axes[d], "written into by position")
    others = axes[:d] + axes[d + 1 :]
    if len(source) == len(axes):
        context.pin(source[d], "written into by position")
        source = source[:d] + source[d + 1 :]
    for a, b in zip(others, source, strict=True):
        context.unify(a, b)
    return axes


@rule("one_hot")
def one_hot(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... -> ... K (classes are pinned)"""
    (classes,) = shape_of(node.meta["val"])[-1:]
    return [*context.axes(arguments["self"]), context.solver.pinned(classes, "one-hot classes")]


@rule("histc", "bincount", "unique_dim", "_unique2", "nonzero", "item", "_local_scalar_dense", "bucketize")
def by_value(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Results depend on every value: all axes are pinned"""
    reason = f"{node.target} reads every value"
    for operand in tensor_nodes(arguments.values()):
        context.pin_all(context.axes(operand), reason)
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        return [context.constant(item, reason) for item in value]
    return context.constant(value, reason) if is_tensor_node(node) else []
