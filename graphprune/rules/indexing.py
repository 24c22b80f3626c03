"""Look-ups by value: an axis is followed if the indices are constant or known to address it, and pinned if not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.axes import Axis, known_size, product, size_of
from graphprune.graph import op_name
from graphprune.rules.context import (
    CannotInfer,
    Inference,
    MaskedInputs,
    Resizing,
    Typed,
    is_one,
    shape_of,
    tensor_nodes,
)
from graphprune.rules.registry import Arguments, masked, resize, rule
from graphprune.rules.selection import IntArray, constant_positions, new_index, select

LOOKED_UP = "looked up by value"
UNIT = product([])


@rule("embedding")
def embedding(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """v c, ... -> ... c (v is what the indices address; pinned if they are inputs, followed if they are constant)"""
    vocabulary, width = context.axes(arguments["weight"])
    indices = arguments["indices"]
    address = context.address(indices)
    positions = constant_positions(context, indices, vocabulary) if address is None else None
    if positions is not None:
        _pin_unused_rows(context, vocabulary, positions)
        return [*select(context, node, vocabulary, positions), width]
    _look_up(context, vocabulary, address)
    return [*context.axes(indices), width]


def _pin_unused_rows(context: Inference, vocabulary: Axis, positions: IntArray) -> None:
    """A table keeps rows that the traced input happens not to look up, such as positions of longer sequences."""
    unused = np.setdiff1d(np.arange(known_size(vocabulary)), positions)
    if len(unused):
        context.pin(context.solver.gather(vocabulary, unused), "rows that are not looked up at the traced sizes")


def _look_up(context: Inference, axis: Axis, address: Axis | None) -> None:
    """Unify an axis that is looked into with what the indices address, or pin it if nobody knows that."""
    if address is None:
        context.pin(axis, LOOKED_UP)
    else:
        context.unify(axis, address)
        context.role("expert", [axis])


@resize("embedding")
def resize_embedding(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["indices"] = new_index(resizing, node, arguments["indices"])
    vocabulary, padding = resizing.axes(arguments["weight"])[0], arguments["padding_idx"]
    mask = resizing.masks.mask(vocabulary)
    if mask is not None and padding is not None and padding >= 0:
        arguments["padding_idx"] = resizing.kept_before(vocabulary, padding) if mask[padding] else -1


INDEXING = ("index", "index_put", "_unsafe_index", "_unsafe_index_put")


@rule(*INDEXING)
def index(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """x[..., i, ...]: i's axes replace what i addresses; constant positions are followed, unknown ones pin the axis"""
    axes, indices = context.axes(arguments["self"]), list(arguments["indices"])
    tensors = [value for value in indices if value is not None]
    if any(tensor.meta["val"].dtype in (torch.bool, torch.uint8) for tensor in tensors):
        return _boolean_index(context, node, arguments, axes, tensors)
    positions = [i for i, value in enumerate(indices) if value is not None]
    batch = _index_axes(context, node, [axes[i] for i in positions], tensors)
    rest = [axis for i, axis in enumerate(axes) if i not in positions]
    adjacent = positions == list(range(positions[0], positions[-1] + 1))
    start = positions[0] if adjacent else 0
    result = [*rest[:start], *batch, *rest[start:]]
    if "values" in arguments:
        if node.name not in context.notes:
            context.pin_all(batch, "written to by value")
        context.broadcast([result, context.axes(arguments["values"])], len(result))
        return axes
    return result


def _index_axes(context: Inference, node: fx.Node, axes: list[Axis], tensors: list[fx.Node]) -> list[Axis]:
    """Return the axes that index ``tensors`` put in place of ``axes``, following constants and addresses."""
    addresses = [context.address(tensor) for tensor in tensors]
    if len(tensors) == 1 and addresses[0] is None:
        positions = constant_positions(context, tensors[0], axes[0])
        if positions is not None:
            return select(context, node, axes[0], positions)
    for axis, address in zip(axes, addresses, strict=True):
        _look_up(context, axis, address)
    operands = [context.axes(tensor) for tensor in tensors]
    return context.broadcast(operands, max(len(operand) for operand in operands))


@resize(*INDEXING)
def resize_index(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["indices"] = [
        None if operand is None else new_index(resizing, node, operand) for operand in arguments["indices"]
    ]


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
    """... s ... , i -> ... i ... (i's address or constant positions in s are followed, else s is pinned)"""
    axes = context.axes(arguments["self"])
    (axes[arguments["dim"]],) = _index_axes(context, node, [axes[arguments["dim"]]], [arguments["index"]])
    return axes


@resize("index_select")
def resize_index_select(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["index"] = new_index(resizing, node, arguments["index"])


@rule("gather")
def gather(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ..., ... I ... -> ... I ... (I addresses s, or is constant and alike along other axes; else s is pinned)"""
    axes, indices = context.axes(arguments["self"]), context.axes(arguments["index"])
    d = arguments["dim"] % len(axes)
    address = context.address(arguments["index"])
    aligned = all(i == d or size_of(a) == size_of(b) for i, (a, b) in enumerate(zip(axes, indices, strict=True)))
    if address is None and aligned:
        row = _uniform_positions(context, arguments["index"], axes[d], d)
        if row is not None:
            (axes[d],) = select(context, node, axes[d], row)
            return axes
    _share(context, axes, [indices], d, address)
    return indices


@rule("take_along_dim")
def take_along(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """As gather, but the other axes broadcast"""
    axes, indices = context.axes(arguments["self"]), context.axes(arguments["indices"])
    if arguments["dim"] is None or len(axes) != len(indices):
        raise CannotInfer("take_along_dim of a flat tensor or of an index of another rank")
    d = arguments["dim"] % len(axes)
    address = context.address(arguments["indices"])
    row = _uniform_positions(context, arguments["indices"], axes[d], d) if address is None else None
    if row is not None and not any(is_one(a) and not is_one(b) for a, b in zip(axes, indices, strict=True)):
        (axes[d],) = select(context, node, axes[d], row)
        return axes
    _look_up(context, axes[d], address)
    axes[d] = indices[d]
    return context.broadcast([axes, indices], len(axes))


def _uniform_positions(context: Inference, node: fx.Node, axis: Axis, d: int) -> IntArray | None:
    """Return the constant positions that the index ``node`` has along ``d``, wherever one looks along other axes."""
    positions = constant_positions(context, node, axis, allow_repeated_rows=True)
    if positions is None:
        return None
    rows = np.moveaxis(positions, d, -1).reshape(-1, positions.shape[d])
    return rows[0] if (rows == rows[0]).all() else None


@resize("gather")
def resize_gather(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["index"] = new_index(resizing, node, arguments["index"], like=resizing.axes(node))


@resize("take_along_dim")
def resize_take_along(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    axes, d = resizing.axes(node), arguments["dim"]
    alone = [axis if i == d % len(axes) else UNIT for i, axis in enumerate(axes)]
    arguments["indices"] = new_index(resizing, node, arguments["indices"], like=alone)


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ..., ... I ..., ... I ... -> ... s ... (I addresses s, else s is pinned; the other axes are shared)"""
    axes = context.axes(arguments["self"])
    address = context.address(arguments["index"])
    others = [context.axes(operand) for operand in tensor_nodes([arguments["index"], arguments.get("src")])]
    _share(context, axes, others, arguments["dim"] % len(axes), address)
    return axes


def _share(
    context: Inference, axes: list[Axis], others: list[list[Axis]], dim: int, address: Axis | None = None
) -> None:
    """Look into position ``dim`` of ``axes``; unify the other positions where sizes agree, else pin them."""
    _look_up(context, axes[dim], address)
    for other in others:
        for d, (a, b) in enumerate(zip(axes, other, strict=True)):
            if d == dim:
                context.pin(b, LOOKED_UP)
            elif size_of(a) != size_of(b):
                context.pin(a, LOOKED_UP)
                context.pin(b, LOOKED_UP)
            else:
                context.unify(a, b)


@rule("masked_scatter")
def write_rows(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """N c, N 1, (R c) -> N c (whole rows, one after the other where the mask says so; otherwise all is pinned)"""
    axes, mask, source = (context.axes(arguments[name]) for name in ("self", "mask", "source"))
    sizes = shape_of(node.meta["val"])
    fits = [size_of(axis) for axis in axes] == sizes and bool(source) and size_of(source[-1]) == sizes[-1]
    if not fits or not _equal_along_rows(arguments["mask"]):
        raise CannotInfer("masked_scatter of single elements")
    context.broadcast([axes, mask], len(axes))
    context.unify(axes[-1], source[-1])
    context.pin_all([*axes[:-1], *source[:-1]], "rows written where a mask says so")
    return axes


@masked("masked_scatter")
def masked_rows(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    """Leave removed elements out: a zero in the mask shifts all elements after it."""
    return inputs.call(node)


_UNCHANGED_VALUES = {"to", "_to_copy", "clone", "contiguous", "detach", "expand", "expand_as", "broadcast_to"}


def _equal_along_rows(mask: fx.Node) -> bool:
    """Say whether ``mask`` has one value for each row of the last axis."""
    while op_name(mask) in _UNCHANGED_VALUES and shape_of(mask.meta["val"])[-1] != 1:
        (mask, *_) = mask.all_input_nodes
    return shape_of(mask.meta["val"])[-1:] == [1]
