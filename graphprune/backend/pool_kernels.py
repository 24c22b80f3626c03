"""Max pooling as TensorIR: the maximum down the window's rows in vectors, then along them.

The first pass leaves several rows in a workspace before the second one reads them at other addresses: values that
have just been stored cannot be read at once in other vectors than they were written in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, store, workspace
from graphprune.backend.kernels.planes import strided
from graphprune.backend.target import CompileTarget

_PARALLEL_WORK = 8192
_STRIP_FLOATS = 4096  # of rows between the passes: half of a first-level cache
_MOST_STRIDED = 2  # stride up to which vectors are put together by shuffles


def max_pool2d_kernel(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    target: CompileTarget,
) -> Kernel:
    """Return the kernel for max pooling of float32 NCHW planes; positions outside the plane never win."""
    planes, height, width = shape[0] * shape[1], shape[2], shape[3]
    rows, columns = out_shape[2:]
    pitch = max((columns - 1) * stride[1] + window[1], padding[1] + width)  # of one padded row
    strip = min(rows, max(1, _STRIP_FLOATS // pitch))
    lanes = target.lanes
    with building("max_pool2d") as emitter:
        buffers = [T.arg(name, T.buffer(s, "float32", layout=None)) for name, s in _arguments(shape, out_shape)]
        x, _, out = (flat_view(buffer) for buffer in buffers)
        plane_loop = T.parallel if planes > 1 and planes * height * width >= _PARALLEL_WORK else T.serial
        with plane_loop(planes) as plane:
            highest = workspace(strip * pitch + 2 * lanes)
            if pitch > width:  # what lies beside the plane stays so; the rest is overwritten
                with T.serial(strip * pitch) as i:
                    T.buffer_store(highest, T.float32(-math.inf), [i])
            with T.serial(-(-rows // strip)) as part:
                first = T.Bind(T.min(part * strip, rows - strip))
                with T.serial(strip) as i:
                    # Clamped to the plane, rows outside the window's part of it repeat one inside.
                    top = T.Bind((first + i) * stride[0] - padding[0])
                    inside = [T.max(T.min(top + offset, height - 1), 0) for offset in range(window[0])]
                    sources = [T.Bind((plane * height + row) * width) for row in inside]
                    _along(width, lanes, _down(highest, i * pitch + padding[1], x, sources))
                with T.serial(strip) as i:
                    target_row = T.Bind((plane * rows + first + i) * columns)
                    _along(columns, lanes, _across(out, target_row, highest, i * pitch, window[1], stride[1]))
    note = f"{planes} planes, window {window[0]}x{window[1]}"
    return Kernel("max_pool2d", emitter.function, (np.zeros(1, np.float32),), out_shape, note=note)


def _arguments(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    # TVM takes any function of one tensor for a possible reshape and looks inside, so there is a second one.
    return [("x", shape), ("unused", (1,)), ("out", out_shape)]


def _along(count: int, lanes: int, body: Callable[[Any, int], None]) -> None:
    """Emit ``body(start, lanes)`` over ``count`` elements in vectors, the last of which overlaps, or one by one."""
    lanes = lanes if count >= lanes else 1
    with T.serial(count // lanes) as i:
        body(i * lanes, lanes)
    if count % lanes:
        body(count - lanes, lanes)


def _down(row: tirx.Buffer, start: Any, x: tirx.Buffer, sources: list[Any]) -> Callable[[Any, int], None]:
    """Return what emits ``row[start + i] = max(x[source + i] for source in sources)`` for a vector."""

    def vector(i: Any, lanes: int) -> None:
        store(row, start + i, _highest([load(x, source + i, lanes) for source in sources]), lanes)

    return vector


def _across(
    out: tirx.Buffer, target: Any, row: tirx.Buffer, start: Any, window: int, stride: int
) -> Callable[[Any, int], None]:
    """Return what emits ``out[target + i] = max(row[start + i * stride:][:window])`` for a vector."""

    def value(index: Any, lanes: int) -> Any:
        if lanes == 1 or stride <= _MOST_STRIDED:
            return strided(row, index, stride, lanes)
        return row[tirx.Ramp(index, stride, lanes)]

    def vector(i: Any, lanes: int) -> None:
        begin = T.Bind(start + i * stride)
        store(out, target + i, _highest([value(begin + offset, lanes) for offset in range(window)]), lanes)

    return vector


def _highest(values: list[Any]) -> Any:
    highest = values[0]
    for value in values[1:]:
        highest = T.Bind(T.max(highest, value))
    return highest
