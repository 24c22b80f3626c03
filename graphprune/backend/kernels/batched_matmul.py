"""Batched product of two activations, as attention needs it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.contract import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, store, workspace
from graphprune.backend.kernels.register_block import Operand, choose_block
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError


def batched_matmul(a_shape: Sequence[int], b_shape: Sequence[int], target: CompileTarget, transpose_b: bool) -> Kernel:
    """Return the kernel of ``a @ b`` for a [..., m, k] and b [..., k, n] (or [..., n, k] with ``transpose_b``).

    Batch axes are equal, or b has none. Buffers: a, b, out.
    """
    batch = prod(a_shape[:-2])
    shared = prod(b_shape[:-2]) == 1 and batch > 1
    if not shared and tuple(a_shape[:-2]) != tuple(b_shape[:-2]):
        raise BackendError(
            f"matmul of {tuple(a_shape)} and {tuple(b_shape)} broadcasts over batch axes",
            hint="expand the operands to equal batch axes",
        )
    rows, depth = a_shape[-2:]
    columns = b_shape[-2] if transpose_b else b_shape[-1]
    if depth != (b_shape[-1] if transpose_b else b_shape[-2]):
        raise BackendError(f"matmul of {tuple(a_shape)} and {tuple(b_shape)}: the reduction axes differ in size")
    out_shape = (*a_shape[:-1], columns)
    block = choose_block(rows, columns, depth, target)
    panels, tiles = -(-columns // block.width), -(-rows // block.rows)
    with building("batched_matmul") as emitter:
        a, b, out = _arguments(a_shape, b_shape, out_shape)
        wide = b
        if transpose_b:
            matrices = 1 if shared else batch
            wide = workspace(matrices * depth * columns)
            _transpose(b, wide, matrices, columns, depth, target)
        with shared_loop(batch * panels * tiles, target.cores) as task:
            sample = T.Bind(task // (panels * tiles))
            column = T.Bind(T.min(task // tiles % panels * block.width, columns - block.width))
            row = T.Bind(T.min(task % tiles * block.rows, rows - block.rows))
            sums = block.allocate()
            block.clear(sums)
            wide_start = T.Bind((0 if shared else sample * (depth * columns)) + column)
            narrow_start = T.Bind((sample * rows + row) * depth)
            narrow = Operand(a, narrow_start, 1, across=depth)
            block.multiply(sums, depth, Operand(wide, wide_start, columns), narrow)
            for i in range(block.rows):
                for v in range(block.vectors):
                    index = (sample * rows + row + i) * columns + column + v * block.lanes
                    store(out, index, load(sums, block.slot(i, v), block.lanes), block.lanes)
    note = f"dense tile {block.rows}x{block.width}"
    return Kernel("batched_matmul", emitter.function, (), out_shape, note=note)


def _arguments(a_shape, b_shape, out_shape) -> list[tirx.Buffer]:
    shapes = {"a": a_shape, "b": b_shape, "out": out_shape}
    declared = [T.arg(name, T.buffer(tuple(shape), "float32", layout=None)) for name, shape in shapes.items()]
    return [flat_view(buffer) for buffer in declared]


def _transpose(b, wide, matrices: int, columns: int, depth: int, target: CompileTarget) -> None:
    """Emit ``wide[s, k, n] = b[s, n, k]`` in square blocks of vectors; the last ones of a row or column overlap."""
    lanes = target.lanes
    while lanes > min(columns, depth):
        lanes //= 2
    across, down = -(-columns // lanes), -(-depth // lanes)
    with shared_loop(matrices * across, target.cores) as task:
        matrix = T.Bind(task // across * (columns * depth))
        n = T.Bind(T.min(task % across * lanes, columns - lanes))
        with T.serial(down) as step:
            k = T.Bind(T.min(step * lanes, depth - lanes))
            rows = [load(b, matrix + (n + i) * depth + k, lanes) for i in range(lanes)]
            for j, vector in enumerate(transposed(rows)):
                store(wide, matrix + (k + j) * columns + n, vector, lanes)
