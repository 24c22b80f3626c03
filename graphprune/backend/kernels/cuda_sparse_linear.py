"""The sparse linear layer on CUDA: one warp a row, one delta-4 group a lane.

    y[t, m] = activation(sum over k of weight[m, k] * x[t, k]  + bias[m] + residual[t, m])

A block of ``WARPS`` warps stages ``x`` in shared memory, then each warp walks one row of the packed weight: lane ``l``
takes groups ``l, l + 32, ...`` of the row, so that a warp reads 512 consecutive bytes of float16 values, and sums in
float32. Five butterfly shuffles add up the lanes, and lane 0 applies the epilogue. No lane waits for another's columns.

Several tokens share a read of the weight: a block stages up to eight as ``x[k][token]``, so that a stored value meets
all of them with one vector load. A row of ``x`` too long for shared memory is read from global memory, through L1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, prod, sqrt

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.cuda import delta4
from graphprune.backend.cuda.delta4 import GROUP, Delta4
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import building, load
from graphprune.errors import BackendError

WARPS = 8
"""Warps, and so rows, of a thread block."""

LANES = 32
MAX_TOKENS = 8
"""Most tokens that share one read of the weight."""

SHARED_BYTES = 48 * 1024
"""Static shared memory that every CUDA device grants a block."""

_VECTOR_BYTES = 16  # widest load of one thread
_FULL_WARP = 0xFFFFFFFF


@dataclass(frozen=True)
class _Shape:
    """Sizes of one kernel; ``tile`` tokens are done at once, and ``staged`` tells whether x goes to shared memory."""

    tokens: int
    rows: int
    columns: int
    groups: int
    dtype: str
    tile: int
    staged: bool

    @property
    def item_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def full_tiles(self) -> bool:
        return self.tokens % self.tile == 0


def cuda_sparse_linear(
    weight: np.ndarray, bias: np.ndarray | None, x_shape: tuple[int, ...], epilogue: Epilogue
) -> Kernel:
    """Return the kernel of a sparse linear layer.

    Args:
        weight: [out, in], float16 or float32; x, bias, residual and the result have the same dtype.
        bias: [out] or None.
        x_shape: [..., in], static.
        epilogue: what follows the product.

    Raises:
        BackendError: if the dtype or the number of columns does not fit the delta-4 format, or a size is not static.
    """
    if not all(isinstance(size, int) for size in x_shape):
        raise BackendError(f"the sparse CUDA kernel needs static shapes, got {x_shape}")
    packed = delta4.pack(weight)
    tokens = prod(x_shape[:-1])
    tile, staged = _tile(tokens, weight.shape[1], weight.dtype.itemsize)
    rows, columns = weight.shape
    shape = _Shape(tokens, rows, columns, len(packed.values), weight.dtype.name, tile, staged)
    output_shape = (*x_shape[:-1], weight.shape[0])
    function = _emit(shape, tuple(x_shape), output_shape, epilogue)
    constants = [packed.values, packed.gaps, packed.first, packed.row_groups]
    if epilogue.bias:
        if bias is None:
            raise BackendError("the epilogue adds a bias, but the layer has none")
        constants.append(np.ascontiguousarray(bias, weight.dtype))
    return Kernel(
        "sparse_linear_delta4", function, tuple(constants), output_shape, weight.dtype.name, _note(shape, packed)
    )


def _tile(tokens: int, columns: int, item_bytes: int) -> tuple[int, bool]:
    """Return how many tokens to take at once, and whether their x fits in shared memory."""
    tile = 1
    while tile < min(tokens, MAX_TOKENS):
        tile *= 2
    while tile > 1 and _staged_bytes(columns, tile, item_bytes) > SHARED_BYTES:
        tile //= 2
    return tile, _staged_bytes(columns, tile, item_bytes) <= SHARED_BYTES


def _staged_bytes(columns: int, tile: int, item_bytes: int) -> int:
    return (columns + GROUP - 1) * tile * item_bytes


def _note(shape: _Shape, packed: Delta4) -> str:
    source = "shared memory" if shape.staged else "global memory"
    return (
        f"delta-4 {shape.dtype}, {packed.nbytes / max(packed.nonzeros, 1):.2f} bytes a non-zero, "
        f"{shape.tile} token(s) at once, x in {source}"
    )


def _emit(shape: _Shape, x_shape: tuple[int, ...], output_shape: tuple[int, ...], epilogue: Epilogue) -> tirx.PrimFunc:
    with building("sparse_linear_delta4") as emitter:
        buffers = _arguments(shape, x_shape, output_shape, epilogue)
        with (
            T.thread_binding(-(-shape.tokens // shape.tile), thread="blockIdx.y") as tile,
            T.thread_binding(-(-shape.rows // WARPS), thread="blockIdx.x") as block,
            T.thread_binding(WARPS, thread="threadIdx.y") as warp,
            T.thread_binding(LANES, thread="threadIdx.x") as lane,
        ):
            token = T.Bind(tile * shape.tile)
            staged = _stage(shape, buffers["x"], token, warp, lane) if shape.staged else None
            row = T.Bind(block * WARPS + warp)
            with T.If(row < shape.rows), T.Then():
                sums = _row_sums(shape, buffers, staged, token, row, lane)
                _reduce_lanes(shape, sums)
                with T.If(lane == 0), T.Then():
                    _store(shape, buffers, sums, token, row, epilogue.activation)
    return emitter.function


def _arguments(
    shape: _Shape, x_shape: tuple[int, ...], output_shape: tuple[int, ...], epilogue: Epilogue
) -> dict[str, tirx.Buffer]:
    """Declare the buffers in the order of the contract and return flat views by name."""
    declarations = {
        "x": (x_shape, shape.dtype),
        "residual": (output_shape, shape.dtype),
        "values": ((shape.groups, GROUP), shape.dtype),
        "gaps": ((shape.groups,), "uint32"),
        "first": ((shape.groups,), "uint16"),
        "row_groups": ((shape.rows + 1,), "int32"),
        "bias": ((shape.rows,), shape.dtype),
        "y": (output_shape, shape.dtype),
    }
    if not epilogue.residual:
        del declarations["residual"]
    if not epilogue.bias:
        del declarations["bias"]
    # All arguments come before the first view: a view opens a scope.
    arguments = {name: T.arg(name, T.buffer(size, dtype, layout=None)) for name, (size, dtype) in declarations.items()}
    return {
        name: T.decl_buffer((prod(size),), dtype, data=arguments[name].data, layout=None)
        for name, (size, dtype) in declarations.items()
    }


def _stage(shape: _Shape, x, token, warp, lane):
    """Copy the tile's x to shared memory as [column, token], with zeros behind the last column for the fillers."""
    padded = shape.columns + GROUP - 1
    staged = T.alloc_buffer((padded * shape.tile,), shape.dtype, scope="shared", layout=None)
    thread = T.Bind(warp * LANES + lane)
    width = _VECTOR_BYTES // shape.item_bytes
    if shape.tile == 1 and shape.columns % width == 0:
        with T.serial(-(-shape.columns // (WARPS * LANES * width))) as step:
            start = T.Bind((step * (WARPS * LANES) + thread) * width)
            with T.If(start < shape.columns), T.Then():
                _store_vector(staged, start, load(x, token * shape.columns + start, width), width)
        with T.If(thread < GROUP - 1), T.Then():
            T.buffer_store(staged, T.Cast(shape.dtype, T.float32(0)), [shape.columns + thread])
    else:
        with T.serial(-(-padded // (WARPS * LANES))) as step:
            column = T.Bind(step * (WARPS * LANES) + thread)
            with T.If(column < padded), T.Then():
                for index in range(shape.tile):
                    value = _guarded_x(shape, x, token + index, column)
                    T.buffer_store(staged, value, [column * shape.tile + index])
    T.evaluate(T.tvm_storage_sync("shared"))
    return staged


def _guarded_x(shape: _Shape, x, token, column):
    inside = column < shape.columns
    if not shape.full_tiles:
        inside = tirx.all(inside, token < shape.tokens)
    return T.if_then_else(inside, x[token * shape.columns + column], T.Cast(shape.dtype, T.float32(0)))


def _row_sums(shape: _Shape, buffers: dict[str, tirx.Buffer], staged, token, row, lane):
    """Emit the walk over the lane's groups and return the per-token sums, one register each."""
    sums = _registers(shape.tile, "float32")
    for index in range(shape.tile):
        T.buffer_store(sums, T.float32(0), [index])
    begin = T.Bind(buffers["row_groups"][row] + lane)
    end = T.Bind(buffers["row_groups"][row + 1])
    group_values = _registers(GROUP, shape.dtype)
    column = _registers(1, "int32")
    with T.serial((end - begin + LANES - 1) // LANES) as step:
        group = T.Bind(begin + step * LANES)
        width = min(GROUP, _VECTOR_BYTES // shape.item_bytes)
        for start in range(0, GROUP, width):
            _store_vector(group_values, start, load(buffers["values"], group * GROUP + start, width), width)
        nibbles = T.Bind(buffers["gaps"][group])
        T.buffer_store(column, T.Cast("int32", buffers["first"][group]), [0])
        for slot in range(GROUP):
            value = T.Bind(T.Cast("float32", group_values[slot]))
            for index, factor in enumerate(_x_at(shape, buffers["x"], staged, token, column[0])):
                T.buffer_store(sums, sums[index] + value * T.Cast("float32", factor), [index])
            if slot + 1 < GROUP:
                gap = T.bitwise_and(T.shift_right(nibbles, T.uint32(4 * slot)), T.uint32(15))
                T.buffer_store(column, column[0] + T.Cast("int32", gap) + 1, [0])
    return sums


def _x_at(shape: _Shape, x, staged, token, column) -> list:
    """Return x at ``column`` for each token of the tile."""
    if staged is None:
        # A filler's column may lie behind the last one; its value is zero, so any x will do.
        return [x[token * shape.columns + T.min(column, shape.columns - 1)]]
    if shape.tile == 1:
        return [staged[column]]
    width = min(shape.tile, _VECTOR_BYTES // shape.item_bytes)
    factors = _registers(shape.tile, shape.dtype)
    for start in range(0, shape.tile, width):
        _store_vector(factors, start, load(staged, column * shape.tile + start, width), width)
    return [factors[index] for index in range(shape.tile)]


def _reduce_lanes(shape: _Shape, sums) -> None:
    """Add up the lanes of the warp by butterfly exchange: every lane ends up with the total."""
    for distance in (16, 8, 4, 2, 1):
        for index in range(shape.tile):
            other = T.tvm_warp_shuffle_xor(T.uint32(_FULL_WARP), sums[index], distance, LANES, LANES)
            T.buffer_store(sums, sums[index] + other, [index])


def _store(shape: _Shape, buffers: dict[str, tirx.Buffer], sums, token, row, activation: str) -> None:
    for index in range(shape.tile):
        if shape.full_tiles:
            _store_token(shape, buffers, sums[index], token + index, row, activation)
        else:
            with T.If(token + index < shape.tokens), T.Then():
                _store_token(shape, buffers, sums[index], token + index, row, activation)


def _store_token(shape: _Shape, buffers: dict[str, tirx.Buffer], total, token, row, activation: str) -> None:
    position = T.Bind(token * shape.rows + row)
    if "bias" in buffers:
        total = total + T.Cast("float32", buffers["bias"][row])
    if "residual" in buffers:
        total = total + T.Cast("float32", buffers["residual"][position])
    T.buffer_store(buffers["y"], T.Cast(shape.dtype, _activate(activation, T.Bind(total))), [position])


def _activate(name: str, x):
    """Return activation ``name`` of a float32 scalar; CUDA's own exp, tanh and erf are accurate and run once a row."""
    if name == "none":
        return x
    if name == "relu":
        return T.max(x, T.float32(0))
    if name == "relu6":
        return T.min(T.max(x, T.float32(0)), T.float32(6))
    if name == "hardswish":
        return x * T.min(T.max(x + T.float32(3), T.float32(0)), T.float32(6)) / T.float32(6)
    if name == "sigmoid":
        return T.float32(1) / (T.float32(1) + T.exp(-x))
    if name == "silu":
        return x / (T.float32(1) + T.exp(-x))
    if name == "tanh":
        return T.tanh(x)
    if name == "gelu":
        return T.float32(0.5) * x * (T.float32(1) + T.erf(x * T.float32(sqrt(0.5))))
    if name == "gelu_tanh":
        inner = T.float32(sqrt(2 / pi)) * (x + T.float32(0.044715) * x * x * x)
        return T.float32(0.5) * x * (T.float32(1) + T.tanh(inner))
    raise BackendError(f"the sparse CUDA kernel has no activation {name!r}")


def _registers(count: int, dtype: str):
    return T.alloc_buffer((count,), dtype, scope="local", layout=None)


def _store_vector(buffer, start, value, width: int) -> None:
    T.buffer_store(buffer, value, [start if width == 1 else tirx.Ramp(start, 1, width)])
