"""Max pooling as TensorIR: the maximum down the window's rows in vectors, then along them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, store, widths, workspace
from graphprune.backend.target import CompileTarget

_LOWEST = -3.4028234e38
_PARALLEL_WORK = 8192


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
    with building("max_pool2d") as emitter:
        buffers = [T.arg(name, T.buffer(s, "float32", layout=None)) for name, s in _arguments(shape, out_shape)]
        x, _, out = (flat_view(buffer) for buffer in buffers)
        plane_loop = T.parallel if planes > 1 and planes * height * width >= _PARALLEL_WORK else T.serial
        with plane_loop(planes) as plane:
            highest = workspace(pitch)
            with T.serial(rows) as row:
                _reset(highest, pitch)
                with T.serial(window[0]) as offset:
                    source = row * stride[0] + offset - padding[0]
                    with T.If(tirx.And(source >= 0, source < height)), T.Then():
                        _raise(highest, padding[1], x, (plane * height + source) * width, width, target.lanes)
                with T.serial(columns) as column:  # LLVM vectorises this loop, strided loads included
                    value = highest[column * stride[1]]
                    for offset in range(1, window[1]):
                        value = T.max(value, highest[column * stride[1] + offset])
                    T.buffer_store(out, value, [(plane * rows + row) * columns + column])
    note = f"{planes} planes, window {window[0]}x{window[1]}"
    return Kernel("max_pool2d", emitter.function, (np.zeros(1, np.float32),), out_shape, note=note)


def _arguments(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    # TVM takes any function of one tensor for a possible reshape and looks inside, so there is a second one.
    return [("x", shape), ("unused", (1,)), ("out", out_shape)]


def _reset(row: tirx.Buffer, size: int) -> None:
    with T.serial(size) as i:
        T.buffer_store(row, T.float32(_LOWEST), [i])


def _raise(row: tirx.Buffer, start: int, x: tirx.Buffer, source: Any, width: int, lanes: int) -> None:
    """Emit ``row[start + i] = max(row[start + i], x[source + i])`` for the whole width."""
    whole = width // lanes
    if whole:
        with T.serial(whole) as i:
            _raise_vector(row, start + i * lanes, x, source + i * lanes, lanes)
    for offset, lane in widths(width - whole * lanes, lanes):
        _raise_vector(row, start + whole * lanes + offset, x, source + whole * lanes + offset, lane)


def _raise_vector(row: tirx.Buffer, index: Any, x: tirx.Buffer, source: Any, lanes: int) -> None:
    store(row, index, T.max(load(row, index, lanes), load(x, source, lanes)), lanes)
