"""Values that number the elements of an axis: one-hot, comparisons with 0, 1, 2 ..., histograms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from graphprune.axes import Axis, size_of
from graphprune.rules.context import Inference, NewConstant, Resizing, Typed, is_tensor_node, shape_of, tensor_nodes
from graphprune.rules.pointwise import element_wise
from graphprune.rules.registry import Arguments, resize, rule


@rule("one_hot")
def one_hot(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... -> ... k (what the values address; pinned if nobody knows that)"""
    (classes,) = shape_of(node.meta["val"])[-1:]
    address = context.address(arguments["self"])
    more = None if address is None else classes - size_of(address)
    if address is not None and isinstance(more, int) and more >= 0:
        context.role("expert", [address])
        axis = context.concatenate([address, context.solver.pinned(more, "classes beyond what is counted")])
    else:
        axis = context.solver.pinned(classes, "one-hot classes")
        if address is not None:
            context.pin(address, "one-hot classes")
    return [*context.axes(arguments["self"]), axis]


@resize("one_hot")
def resize_one_hot(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["num_classes"] = resizing.resized(arguments["num_classes"], resizing.axes(node)[-1])


@rule("eq", "ne", "lt", "le", "gt", "ge")
def compare(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... , ... -> ... (broadcast; numbers of elements compare with each other, or with all numbers in order)"""
    operands = tensor_nodes(arguments.values())
    addresses = [context.address(operand) for operand in operands]
    known = [(operand, address) for operand, address in zip(operands, addresses, strict=True) if address is not None]
    if len(known) == 2:
        context.unify(known[0][1], known[1][1])
    elif len(known) == 1:
        ((operand, address),) = known
        others = [other for other in operands if other is not operand]
        d = _counting_axis(context, others[0], address) if others else None
        if d is not None:
            counted: list[Axis] = [context.solver.leaf(1) for _ in shape_of(others[0].meta["val"])]
            counted[d] = address
            context.notes[node.name] = Counting(others[0], d, address)
            context.role("expert", [address])
            return context.broadcast([context.axes(operand), counted], len(shape_of(node.meta["val"])))
        context.pin(address, "compared with a fixed number")
    return element_wise(context, node, arguments)


@dataclass(frozen=True)
class Counting:
    """A constant operand that counts the elements of an axis: 0, 1, 2, ... along its dimension ``d``."""

    operand: fx.Node
    d: int
    axis: Axis


def _counting_axis(context: Inference, node: fx.Node, address: Axis) -> int | None:
    """Return the dimension along which the constant ``node`` counts all elements of ``address``, or None."""
    value = context.constant_value(node)
    if value is None or value.numel() != size_of(address) or max(value.shape, default=0) != value.numel():
        return None
    counts = torch.equal(value.flatten().long().cpu(), torch.arange(value.numel()))
    return list(value.shape).index(value.numel()) if counts else None


@resize("eq", "ne", "lt", "le", "gt", "ge")
def resize_compare(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    counting = resizing.notes.get(node.name)
    if counting is None or not resizing.masks.changes(counting.axis):
        return
    old = counting.operand.meta["val"]
    shape = [-1 if d == counting.d else 1 for d in range(old.dim())]
    value = torch.arange(int(resizing.count(counting.axis)), dtype=old.dtype, device=old.device).view(shape)
    for name, operand in list(arguments.items()):
        if operand is counting.operand:
            arguments[name] = NewConstant(operand, value)


@rule("histc")
def histogram(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... -> k (how often each element that the values address occurs; k pinned too if nobody knows that)"""
    bins, low, high = arguments["bins"], arguments["min"], arguments["max"]
    address = context.address(arguments["self"])
    if address is not None and (bins, low, high) == (size_of(address), 0, bins - 1):
        context.role("expert", [address])
        # an element removed from what is counted must not be counted, which a zero in its place would be
        context.pin_all(context.axes(arguments["self"]), "each element is counted")
        return [address]
    if address is not None:
        context.pin(address, "counted in bins of other widths")
    return by_value(context, node, arguments)


@resize("histc")
def resize_histogram(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    (axis,) = resizing.axes(node)
    if resizing.masks.changes(axis):
        arguments["bins"] = resizing.count(axis)
        arguments["max"] = arguments["bins"] - 1


@rule("bincount", "unique_dim", "_unique2", "nonzero", "item", "_local_scalar_dense", "bucketize")
def by_value(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Results depend on every value: all axes are pinned"""
    reason = f"{node.target} reads every value"
    for operand in tensor_nodes(arguments.values()):
        context.pin_all(context.axes(operand), reason)
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        return [context.constant(item, reason) for item in value]
    return context.constant(value, reason) if is_tensor_node(node) else []
