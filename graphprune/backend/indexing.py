"""Lowers ``select``, ``index.Tensor`` and ``index_select``: never reads outside of the tensor."""

from __future__ import annotations

import math

from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments


def lower_index(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``x[:, i, j]`` with integer tensors; they broadcast with each other, and negative ones count from the end.

    An index beyond the axis reads its last element, where torch raises and TVM would read anywhere.

    Raises:
        BackendError: for boolean masks, whose result has no static shape.
    """
    bound = bind_arguments(node)
    source = bound["self"]
    shape = static_shape(source)
    indices = {axis: index for axis, index in enumerate(bound["indices"]) if index is not None}
    if any(index.meta["val"].dtype.itemsize == 1 for index in indices.values()):
        raise BackendError("a boolean mask selects a number of elements that only the data tells", node=node)
    axes = sorted(indices)
    first, last = axes[0], axes[-1]
    x = lowering.value(source)
    if axes != list(range(first, last + 1)):  # torch puts the indexed axes first if they are not neighbours
        others = [axis for axis in range(len(shape)) if axis not in indices]
        x = lowering.emit(relax.op.permute_dims(x, [*axes, *others]))
        before: tuple[int, ...] = ()
        after = tuple(shape[axis] for axis in others)
    else:
        before, after = shape[:first], shape[last + 1 :]
    sizes = [shape[axis] for axis in axes]
    flat = lowering.emit(relax.op.reshape(x, (*before, math.prod(sizes), *after)))
    position = _position(lowering, [(indices[axis], shape[axis]) for axis in axes])
    taken = lowering.emit(relax.op.take(flat, position, axis=len(before), mode="clip"))
    return lowering.emit(relax.op.reshape(taken, static_shape(node)))


def _position(lowering: Lowering, indices: list[tuple[fx.Node, int]]) -> relax.Var:
    """Return the row-major position, one-dimensional, of indices that address axes of the given sizes."""
    total: relax.Var | None = None
    for index, size in indices:
        value = _within(lowering, lowering.value(index), size)
        if total is not None:
            scaled = lowering.emit(relax.op.multiply(total, relax.const(size, "int64")))
            value = lowering.emit(relax.op.add(scaled, value))
        total = value
    return lowering.emit(relax.op.reshape(total, (-1,)))


def _within(lowering: Lowering, index: relax.Expr, size: int) -> relax.Var:
    """Return ``index`` as int64 from 0 to ``size - 1``."""
    index = lowering.emit(relax.op.astype(index, "int64"))
    from_end = lowering.emit(relax.op.add(index, relax.const(size, "int64")))
    negative = lowering.emit(relax.op.less(index, relax.const(0, "int64")))
    index = lowering.emit(relax.op.where(negative, from_end, index))
    return lowering.emit(relax.op.clip(index, 0, max(0, size - 1)))


def lower_select(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``select`` at a constant position to a slice; TVM's own import is a general, unchecked ``take``.

    Raises:
        BackendError: if the position is only known at run time.
    """
    bound = bind_arguments(node)
    shape = static_shape(bound["self"])
    axis, position = bound["dim"] % len(shape), bound["index"]
    if not isinstance(position, int):
        raise BackendError("select at a position that is only known at run time", node=node)
    start = position % shape[axis]
    part = lowering.emit(relax.op.strided_slice(lowering.value(bound["self"]), [axis], [start], [start + 1]))
    return lowering.emit(relax.op.reshape(part, static_shape(node)))


def lower_index_select(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``index_select``, which unlike ``x[i]`` takes no negative indices."""
    bound = bind_arguments(node)
    index, x = lowering.value(bound["index"]), lowering.value(bound["self"])
    rank = bound["self"].meta["val"].dim()
    return lowering.emit(relax.op.take(x, index, axis=bound["dim"] % max(1, rank), mode="clip"))
