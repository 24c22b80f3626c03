"""Softmax and layer norm over the last axis as TensorIR: rows in parallel, vectors along a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, registers, splat, store
from graphprune.backend.kernels.rows import Mask, accumulate, along, broadcast_strides, fold, plus, row_lanes, weigh_row
from graphprune.backend.kernels.tiling import Tile
from graphprune.backend.kernels.token_tiles import tiled_layer_norm
from graphprune.backend.target import CompileTarget

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
    strides = None if mask_shape is None else broadcast_strides(mask_shape, shape)
    with building("softmax_rows") as emitter:
        mask_shapes = () if mask_shape is None else (mask_shape,)
        # The scale is an argument because TVM takes any function of one tensor for a possible reshape and looks inside.
        x, *masks, factors, out = _arguments(shape, *mask_shapes, (1,), shape)
        mask = None if strides is None else Mask(masks[0], strides, shape)
        with _row_loop(rows, columns) as row:
            start = T.Bind(row * columns)
            factor = weigh_row(
                x, start, out, start, columns, target, row=row,
                position=row % shape[-2] if causal else None, scale=factors[0] if scale != 1.0 else None, mask=mask,
            )  # fmt: skip

            def normalise(column: Any, width: int) -> None:
                store(out, start + column, load(out, start + column, width) * splat(factor, width), width)

            along(columns, row_lanes(target, columns), normalise)
    return Kernel("softmax_rows", emitter.function, (np.array([scale], np.float32),), shape, note=note)


def layer_norm_kernel(
    shape: tuple[int, ...], width: int, epsilon: float, target: CompileTarget, tile: Tile | None = None
) -> Kernel:
    """Return the kernel that normalises each run of ``width`` last elements.

    Its buffers are x, scale and shift (both [width]), and the result. Mean and variance are taken in two passes, so a
    large mean costs no accuracy. With a ``tile``, x and the result are in tiles of [features, tokens].
    """
    if tile is not None:
        return tiled_layer_norm(width, epsilon, tile)
    rows = math.prod(shape) // width
    lanes = row_lanes(target, width)

    with building("layer_norm_rows") as emitter:
        x, scale, shift, out = _arguments(shape, (width,), (width,), shape)
        with _row_loop(rows, width) as row:
            accumulator = registers(1, lanes)

            def total(column: Any, lane: int) -> None:
                accumulate(accumulator, plus, load(x, row * width + column, lane), lane)

            def squares(column: Any, lane: int) -> None:
                centred = T.Bind(load(x, row * width + column, lane) - splat(mean, lane))
                accumulate(accumulator, plus, centred * centred, lane)

            def apply(column: Any, lane: int) -> None:
                centred = load(x, row * width + column, lane) - splat(mean, lane)
                scaled = centred * splat(inverse, lane) * load(scale, column, lane)
                store(out, row * width + column, scaled + load(shift, column, lane), lane)

            store(accumulator, 0, splat(0.0, lanes), lanes)
            along(width, lanes, total)
            mean = T.Bind(fold(accumulator, plus, lanes) * T.float32(1.0 / width))
            store(accumulator, 0, splat(0.0, lanes), lanes)
            along(width, lanes, squares)
            variance = fold(accumulator, plus, lanes) * T.float32(1.0 / width)
            inverse = T.Bind(T.float32(1.0) / T.sqrt(variance + T.float32(epsilon)))
            along(width, lanes, apply)
    return Kernel("layer_norm_rows", emitter.function, (), shape, note=f"{rows} rows of {width}")


def _arguments(*shapes: tuple[int, ...]) -> list[tirx.Buffer]:
    """Declare one float32 buffer for each shape and return flat views of them."""
    buffers = [T.arg(f"b{i}", T.buffer(shape, "float32", layout=None)) for i, shape in enumerate(shapes)]
    return [flat_view(buffer) for buffer in buffers]


def _row_loop(rows: int, columns: int) -> Any:
    return T.parallel(rows) if rows > 1 and rows * columns >= _PARALLEL_WORK else T.serial(rows)
