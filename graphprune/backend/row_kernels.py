"""Softmax and layer norm over the last axis as TensorIR: rows in parallel, vectors along a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels import Kernel
from graphprune.backend.kernels.activations import _exp as exponential
from graphprune.backend.kernels.emit import building, flat_view, load, registers, splat, store, widths
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_NEVER = -1e30  # a score without weight: finite, so that a row in which nothing may be chosen gives no NaN
_PARALLEL_WORK = 8192  # elements from which on waking threads pays


def softmax_kernel(
    shape: tuple[int, ...],
    mask_shape: tuple[int, ...] | None,
    target: CompileTarget,
    *,
    scale: float = 1.0,
    causal: bool = False,
) -> Kernel:
    """Return the kernel for ``softmax(x * scale + mask)`` over the last axis.

    Its buffers are x, the mask if there is one (float32, broadcast against x), the scale, and the result. With
    ``causal``, position ``i`` of the last-but-one axis sees only the first ``i + 1`` columns. A row that the mask
    closes altogether (-inf) comes out as zeros, as in torch's attention; without a mask, it is NaN, as in its softmax.

    Raises:
        BackendError: if the mask does not broadcast against ``shape``.
    """
    note = f"{math.prod(shape[:-1])} rows of {shape[-1]}"
    columns, rows = shape[-1], math.prod(shape[:-1])
    strides = None if mask_shape is None else _broadcast_strides(mask_shape, shape)
    lanes = _lanes(target, columns)
    with building("softmax_rows") as emitter:
        mask_shapes = () if mask_shape is None else (mask_shape,)
        # The scale is an argument because TVM takes any function of one tensor for a possible reshape and looks inside.
        x, *masks, factors, out = _arguments(shape, *mask_shapes, (1,), shape)
        mask = masks[0] if masks else None
        with _row_loop(rows, columns) as row:
            start = T.Bind(row * columns)
            accumulator = registers(1, lanes)
            mask_row = 0 if strides is None else _offset(row, shape[:-1], strides[:-1])

            def score(column: Any, width: int) -> None:
                value = load(x, start + column, width)
                if scale != 1.0:
                    value = value * splat(factors[0], width)
                if mask is not None and strides is not None:
                    value = value + _mask_values(mask, mask_row, column, strides[-1], width)
                if causal:
                    value = _hide_later(value, column, row % shape[-2], width)
                store(out, start + column, value, width)
                _accumulate(accumulator, tirx.max, load(out, start + column, width), width)

            def weigh(column: Any, width: int) -> None:
                shifted = load(out, start + column, width) - splat(base, width)
                store(out, start + column, exponential(shifted, width), width)
                _accumulate(accumulator, lambda a, b: a + b, load(out, start + column, width), width)

            def normalise(column: Any, width: int) -> None:
                store(out, start + column, load(out, start + column, width) * splat(factor, width), width)

            store(accumulator, 0, splat(-math.inf, lanes), lanes)
            _along(columns, lanes, score)
            highest = base = _fold(accumulator, tirx.max, lanes)
            is_open = None if mask is None else T.Bind(highest > T.float32(-math.inf))
            if is_open is not None:
                base = T.Bind(tirx.Select(is_open, highest, T.float32(0.0)))
            store(accumulator, 0, splat(0.0, lanes), lanes)
            _along(columns, lanes, weigh)
            total = _fold(accumulator, lambda a, b: a + b, lanes)
            factor = T.Bind(T.float32(1.0) / total)
            if is_open is not None:
                factor = T.Bind(tirx.Select(is_open, factor, T.float32(0.0)))
            _along(columns, lanes, normalise)
    return Kernel("softmax_rows", emitter.function, (np.array([scale], np.float32),), shape, note=note)


def layer_norm_kernel(shape: tuple[int, ...], width: int, epsilon: float, target: CompileTarget) -> Kernel:
    """Return the kernel that normalises each run of ``width`` last elements.

    Its buffers are x, scale and shift (both [width]), and the result. Mean and variance are taken in two passes, so a
    large mean costs no accuracy.
    """
    rows = math.prod(shape) // width
    lanes = _lanes(target, width)

    def plus(a: Any, b: Any) -> Any:
        return a + b

    with building("layer_norm_rows") as emitter:
        x, scale, shift, out = _arguments(shape, (width,), (width,), shape)
        with _row_loop(rows, width) as row:
            accumulator = registers(1, lanes)

            def total(column: Any, lane: int) -> None:
                _accumulate(accumulator, plus, load(x, row * width + column, lane), lane)

            def squares(column: Any, lane: int) -> None:
                centred = T.Bind(load(x, row * width + column, lane) - splat(mean, lane))
                _accumulate(accumulator, plus, centred * centred, lane)

            def apply(column: Any, lane: int) -> None:
                centred = load(x, row * width + column, lane) - splat(mean, lane)
                scaled = centred * splat(inverse, lane) * load(scale, column, lane)
                store(out, row * width + column, scaled + load(shift, column, lane), lane)

            store(accumulator, 0, splat(0.0, lanes), lanes)
            _along(width, lanes, total)
            mean = T.Bind(_fold(accumulator, plus, lanes) * T.float32(1.0 / width))
            store(accumulator, 0, splat(0.0, lanes), lanes)
            _along(width, lanes, squares)
            variance = _fold(accumulator, plus, lanes) * T.float32(1.0 / width)
            inverse = T.Bind(T.float32(1.0) / T.sqrt(variance + T.float32(epsilon)))
            _along(width, lanes, apply)
    return Kernel("layer_norm_rows", emitter.function, (), shape, note=f"{rows} rows of {width}")


def _arguments(*shapes: tuple[int, ...]) -> list[tirx.Buffer]:
    """Declare one float32 buffer for each shape and return flat views of them."""
    buffers = [T.arg(f"b{i}", T.buffer(shape, "float32", layout=None)) for i, shape in enumerate(shapes)]
    return [flat_view(buffer) for buffer in buffers]


def _lanes(target: CompileTarget, columns: int) -> int:
    lanes = target.lanes
    while lanes > columns:
        lanes //= 2
    return max(1, lanes)


def _row_loop(rows: int, columns: int) -> Any:
    return T.parallel(rows) if rows > 1 and rows * columns >= _PARALLEL_WORK else T.serial(rows)


def _along(columns: int, lanes: int, body: Callable[[Any, int], None]) -> None:
    """Emit ``body(column, width)`` over a row: a loop of whole vectors, then narrower vectors for the rest."""
    whole = columns // lanes
    if whole:
        with T.serial(whole) as i:
            body(i * lanes, lanes)
    for start, width in widths(columns - whole * lanes, lanes):
        body(whole * lanes + start, width)


def _accumulate(accumulator: tirx.Buffer, combine: Callable[[Any, Any], Any], value: Any, width: int) -> None:
    store(accumulator, 0, combine(load(accumulator, 0, width), value), width)


def _fold(accumulator: tirx.Buffer, combine: Callable[[Any, Any], Any], lanes: int) -> Any:
    """Return the lanes of the accumulator combined to one scalar, halves first."""
    while lanes > 1:
        lanes //= 2
        store(accumulator, 0, combine(load(accumulator, 0, lanes), load(accumulator, lanes, lanes)), lanes)
    return T.Bind(accumulator[0])


def _broadcast_strides(mask_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the mask's stride for each axis of ``shape``, 0 where it broadcasts."""
    padded = (1,) * (len(shape) - len(mask_shape)) + mask_shape
    if len(padded) != len(shape) or any(m not in (1, s) for m, s in zip(padded, shape, strict=True)):
        raise BackendError(f"a mask of shape {mask_shape} does not broadcast against {shape}")
    strides, step = [], 1
    for m in reversed(padded):
        strides.append(0 if m == 1 else step)
        step *= m
    return tuple(reversed(strides))


def _offset(row: Any, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Return the mask's offset for a flat row index."""
    offset: Any = 0
    for axis in reversed(range(len(sizes))):
        if strides[axis]:
            offset = offset + (row // math.prod(sizes[axis + 1 :])) % sizes[axis] * strides[axis]
    return T.Bind(offset) if not isinstance(offset, int) else offset


def _mask_values(mask: tirx.Buffer, mask_row: Any, column: Any, stride: int, width: int) -> Any:
    return splat(mask[mask_row], width) if stride == 0 else load(mask, mask_row + column, width)


def _hide_later(value: Any, column: Any, position: Any, width: int) -> Any:
    if width == 1:
        return tirx.Select(column <= position, value, T.float32(_NEVER))
    columns = tirx.Ramp(T.cast(column, "int32") if not isinstance(column, int) else T.int32(column), 1, width)
    return tirx.Select(columns <= tirx.Broadcast(position, width), value, splat(_NEVER, width))
