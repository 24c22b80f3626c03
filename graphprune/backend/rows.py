"""Lowers softmax, norms, extrema, max pooling and embedding: ops that work on rows, groups or windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments, op_name

_NEVER = -1e30  # added to a score that must get no weight; finite, so that a row without any choice stays finite


def lower_softmax(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``softmax``; over another axis than the last it stays Relax's op."""
    bound = bind_arguments(node)
    source = bound["self"]
    axis = bound["dim"] % max(1, source.meta["val"].dim())
    x = lowering.value(source)
    if bound.get("dtype") is not None and bound["dtype"] != source.meta["val"].dtype:
        x = lowering.emit(relax.op.astype(x, str(bound["dtype"]).removeprefix("torch.")))
    if axis != source.meta["val"].dim() - 1:
        return lowering.emit(relax.op.nn.softmax(x, axis))
    return emit_softmax(lowering, x, static_shape(source))


def emit_softmax(
    lowering: Lowering,
    x: relax.Expr,
    shape: tuple[int, ...],
    *,
    scale: float = 1.0,
    mask: relax.Expr | None = None,
    causal: bool = False,
) -> relax.Var:
    """Emit ``softmax(x * scale + mask)`` over the last axis, for a mask as ``added_mask`` returns it.

    A row in which the mask keeps nothing becomes zeros.
    """
    dtype = str(x.ty.dtype)
    try:
        if dtype != "float32":
            raise BackendError(f"dtype {dtype}")
        kernel = lowering.backend.softmax(shape, shape_of_mask(mask), lowering.target, scale=scale, causal=causal)
    except BackendError:
        return _relax_softmax(lowering, x, shape, scale, mask, causal)
    return lowering.call(kernel, [x] if mask is None else [x, mask])


def added_mask(lowering: Lowering, mask: relax.Expr | None, dtype: str) -> relax.Expr | None:
    """Return a mask as what is added to scores of type ``dtype``: a boolean one keeps where it is True."""
    if mask is None or str(mask.ty.dtype) != "bool":
        return mask
    return lowering.emit(relax.op.where(mask, relax.const(0.0, dtype), relax.const(-math.inf, dtype)))


def shape_of_mask(mask: relax.Expr | None) -> tuple[int, ...] | None:
    """Return the mask's shape, None if there is none."""
    return None if mask is None else tuple(int(size) for size in mask.ty.shape)


def _relax_softmax(
    lowering: Lowering, x: relax.Expr, shape: tuple[int, ...], scale: float, mask: relax.Expr | None, causal: bool
) -> relax.Var:
    dtype = str(x.ty.dtype)
    if scale != 1.0:
        x = lowering.emit(relax.op.multiply(x, relax.const(scale, dtype)))
    if mask is not None:
        x = lowering.emit(relax.op.add(x, mask))
    if causal:
        never = _NEVER if dtype == "float32" else -60000.0
        blocked = np.triu(np.full(shape[-2:], never, dtype), k=1)
        x = lowering.emit(relax.op.add(x, relax.const(blocked)))
    weights = lowering.emit(relax.op.nn.softmax(x, -1))
    if mask is None:
        return weights
    kept = lowering.emit(relax.op.astype(relax.op.greater(mask, relax.const(-math.inf, dtype)), dtype))
    is_open = lowering.emit(relax.op.greater(relax.op.sum(kept, -1, keepdims=True), relax.const(0.0, dtype)))
    return lowering.emit(relax.op.where(is_open, weights, relax.const(0.0, dtype)))


def lower_layer_norm(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``layer_norm``."""
    bound = bind_arguments(node)
    source = bound["input"]
    normalized = tuple(int(size) for size in bound["normalized_shape"])
    width = math.prod(normalized)
    dtype = str(source.meta["val"].dtype).removeprefix("torch.")
    scale = relax.const(np.ones(normalized, dtype)) if bound["weight"] is None else lowering.value(bound["weight"])
    shift = relax.const(np.zeros(normalized, dtype)) if bound["bias"] is None else lowering.value(bound["bias"])
    try:
        if dtype != "float32":
            raise BackendError(f"dtype {dtype}")
        tile = lowering.layout.kept.get(node)
        kernel = lowering.backend.layer_norm(static_shape(source), width, float(bound["eps"]), lowering.target, tile)
    except BackendError:
        x, axes = lowering.value(source), list(range(-len(normalized), 0))
        return lowering.emit(relax.op.nn.layer_norm(x, scale, shift, axes=axes, epsilon=float(bound["eps"])))
    flat = [
        value if len(normalized) == 1 else lowering.emit(relax.op.reshape(value, (width,))) for value in (scale, shift)
    ]
    if tile is not None:
        return lowering.hold_tiles(node, lowering.call(kernel, [lowering.tiles(source, tile), *flat]), tile)
    return lowering.call(kernel, [lowering.value(source), *flat])


def lower_group_norm(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``group_norm``, also one without scale and shift, which TVM's importer cannot."""
    bound = bind_arguments(node)
    source = bound["input"]
    channels = int(source.meta["val"].shape[1])
    dtype = str(source.meta["val"].dtype).removeprefix("torch.")
    scale = relax.const(np.ones(channels, dtype)) if bound["weight"] is None else lowering.value(bound["weight"])
    shift = relax.const(np.zeros(channels, dtype)) if bound["bias"] is None else lowering.value(bound["bias"])
    axes = list(range(2, source.meta["val"].dim()))
    x = lowering.value(source)
    return lowering.emit(
        relax.op.nn.group_norm(x, scale, shift, int(bound["num_groups"]), 1, axes, float(bound["eps"]))
    )


def lower_extremum(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``amax`` and ``amin``."""
    bound = bind_arguments(node)
    reduce = relax.op.max if op_name(node) == "amax" else relax.op.min
    return lowering.emit(reduce(lowering.value(bound["self"]), list(bound["dim"]) or None, bound["keepdim"]))


def lower_max_pool2d(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``max_pool2d``."""
    bound = bind_arguments(node)
    source = bound["self"]
    x = lowering.value(source)
    window, padding, dilation = (_pair(bound[name]) for name in ("kernel_size", "padding", "dilation"))
    stride = _pair(bound["stride"]) if bound["stride"] else window
    try:
        shape = static_shape(source)
        if len(shape) != 4 or dilation != (1, 1) or source.meta["val"].dtype != torch.float32:
            raise BackendError("only float32 NCHW without dilation")
        kernel = lowering.backend.max_pool2d(shape, static_shape(node), window, stride, padding, lowering.target)
    except BackendError:
        rank = source.meta["val"].dim()
        if rank == 3:
            x = lowering.emit(relax.op.expand_dims(x, 0))
        pooled = lowering.emit(relax.op.nn.max_pool2d(x, window, stride, padding, dilation, bound["ceil_mode"]))
        return lowering.emit(relax.op.squeeze(pooled, [0])) if rank == 3 else pooled
    return lowering.call(kernel, [x])


def lower_embedding(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``embedding``; an index beyond the table reads its last or first row, where TVM would read anywhere."""
    bound = bind_arguments(node)
    weight, indices = lowering.value(bound["weight"]), lowering.value(bound["indices"])
    rank = bound["indices"].meta["val"].dim()
    if rank == 1:
        return lowering.emit(relax.op.take(weight, indices, axis=0, mode="clip"))
    flat = lowering.emit(relax.op.reshape(indices, (-1,)))
    rows = lowering.emit(relax.op.take(weight, flat, axis=0, mode="clip"))
    return lowering.emit(relax.op.reshape(rows, static_shape(node)))


def _pair(values: Any) -> tuple[int, int]:
    numbers = [values] if isinstance(values, int) else list(values)
    return (int(numbers[0]), int(numbers[-1]))
