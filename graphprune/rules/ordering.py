"""Ops that choose elements by their size: top-k, arg-max, sort. The numbers they return address that axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.axes import Axis, pin_of, size_of
from graphprune.rules.context import Inference, MaskedInputs, Typed, shape_of, tensor_nodes
from graphprune.rules.pointwise import element_wise
from graphprune.rules.reduction import pinned_reduction, reduce_axes
from graphprune.rules.registry import Arguments, masked, rule


def _choose(context: Inference, node: fx.Node, axis: Axis, count: int) -> Axis | None:
    """Record that ``node`` chooses ``count`` elements of ``axis``; return what their numbers address, if anything."""
    if pin_of(axis) is not None or not isinstance(size_of(axis), int):
        context.pin(axis, f"chosen from by {node.target}")
        return None
    context.statistic(node, [axis])
    context.minimums.append((node.name, axis, count))
    return axis


@rule("topk")
def topk(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ... -> ... K ... (statistic over s: the best K of those kept; the indices address s)"""
    axes = context.axes(arguments["self"])
    d, count = arguments["dim"] % len(axes), shape_of(node.meta["val"][0])[arguments["dim"]]
    values = context.address(arguments["self"])
    if isinstance(count, int):
        address = _choose(context, node, axes[d], count)
    else:
        address = context.pin(axes[d], f"ordered by {node.target}")
    axes[d] = context.solver.pinned(count, f"ordered by {node.target}")
    context.addresses[node] = [values, address]
    return [axes, list(axes)]


@rule("argmax", "argmin")
def argmax(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ... -> ... ... (statistic over s, which the result addresses)"""
    if arguments["dim"] is None:
        return pinned_reduction(context, node, arguments)
    (axis,), typed = reduce_axes(context, node, arguments)
    context.addresses[node] = _choose(context, node, axis, 1)
    return typed


@rule("max", "min")
def extremum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ... -> ... ... (statistic over s, which the indices address); two tensors: element-wise"""
    if len(tensor_nodes(arguments.values())) > 1:
        return element_wise(context, node, arguments)
    if arguments.get("dim") is None:
        return pinned_reduction(context, node, arguments)
    values = context.address(arguments["self"])
    (axis,), typed = reduce_axes(context, node, arguments)
    context.addresses[node] = [values, _choose(context, node, axis, 1)]
    return typed


@masked("topk", "argmax", "argmin", "max", "min")
def masked_choice(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    """Choose among kept elements and number them as in the original."""
    operands = tensor_nodes(arguments.values())
    target: Any = node.target
    kept = [inputs.kept(operand) for operand in operands]
    result = target(*kept, *node.args[len(kept) :], **node.kwargs)
    if len(operands) > 1 or arguments.get("dim") is None:
        return result
    (operand,) = operands
    axis = inputs.types[operand][arguments["dim"]]
    assert isinstance(axis, Axis)
    if not inputs.masks.changes(axis):
        return result
    mask = inputs.masks.mask(axis)
    assert mask is not None
    numbers = torch.from_numpy(np.flatnonzero(mask)).to(inputs.values[operand].device)
    if isinstance(result, torch.Tensor):
        return numbers[result]
    return (result[0], numbers[result[1]])


@rule("sort", "argsort", "msort")
def ordering(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (pinned along the axis that is ordered)"""
    axes = context.axes(arguments["self"])
    d = (arguments.get("dim") or 0) % len(axes)
    context.pin(axes[d], f"ordered by {node.target}")
    values = context.address(arguments["self"])
    if not isinstance(node.meta["val"], (tuple, list)):
        return axes
    context.addresses[node] = [values, None]
    return [axes, list(axes)]
