"""Linear layer with unstructured zeros on several tokens.

Tokens fill the vectors, so a tile of activations is transposed on the way into a small buffer, one reduction block at a
time, and the results are transposed on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.emit import arguments, building, load, registers, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.tiling import Tile, choose_tile, row_chunks
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 8192  # input floats of one reduction block of a tile, about what stays in a first-level cache
_TILE_FLOATS = 40  # of a tile's width: the narrower, the longer the rows of a block, and the less often sums move
_NEAR_FLOATS = 2**16  # sums that a chunk of rows lays aside between blocks, to stay in a second-level cache


def sparse_linear(
    weight: np.ndarray,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for ``x`` [..., in] and ``weight`` [out, in] whose zeros cost nothing."""
    features, depth = weight.shape
    lanes = target.lanes
    tile = choose_tile(1, prod(x_shape[:-1]), lanes, choice.vectors or max(4, _TILE_FLOATS // lanes), overhead=3.0)
    pitch = len(tile.starts) * lanes
    blocks = max(1, round(depth * pitch / (choice.block_floats or _CACHE_FLOATS)))
    block = -(-depth // blocks)
    # Results are transposed in squares of `lanes`, so there are at least that many rows, if need be empty ones.
    rows = max(features, lanes)
    padding = rows - features
    # The first rows of the buffer are spare: see `_Tasks.gather`.
    offsets = (np.arange(block) + lanes) * pitch
    packed = pack_csr(np.pad(weight, ((0, padding), (0, 0))), offsets)
    biases = np.pad(bias_constant(bias, epilogue, features), (0, padding))
    constants = (packed.values, packed.offsets, packed.pointers, biases)
    least = -(-rows * pitch // _NEAR_FLOATS)
    chunks = row_chunks(rows, tile.count, target.cores, granule=4 * lanes, least=least)
    out_shape = (*x_shape[:-1], features)
    with building("sparse_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        sums = CsrSums(buffers.constants, packed, range(0, pitch, lanes), lanes, target.registers)
        _Tasks(buffers, sums, tile, depth, block, features, epilogue.activation).emit(chunks)
    blocking = f"{packed.blocks} blocks of {block} features, {chunks} row chunks"
    note = f"csr tile {tile.columns} tokens, {blocking}, {packed.note}"
    return Kernel("sparse_linear", emitter.function, constants, out_shape, note=note)


class _Tasks:
    """Emits the parallel loop over (token tile, chunk of output features)."""

    def __init__(self, buffers, sums: CsrSums, tile: Tile, depth: int, block: int, features: int, activation: str):
        self.buffers, self.sums, self.tile = buffers, sums, tile
        self.depth, self.block, self.features, self.activation = depth, block, features, activation
        self.lanes = tile.lanes

    def emit(self, chunks: int) -> None:
        rows = self.sums.rows
        chunk_rows = max(self.lanes, -(-rows // chunks))
        with T.parallel(self.tile.count * chunks) as task:
            first_row = T.Bind(T.min(task % chunks * chunk_rows, rows - chunk_rows))
            _, token = self.tile.origin(task // chunks)
            columns = workspace((self.block + 2 * self.lanes) * self.sums.width)
            held = self.sums.over_blocks(
                first_row, chunk_rows, columns, 0, lambda block: self._gather(columns, token, block * self.block)
            )
            with T.serial(-(-chunk_rows // self.lanes)) as group:
                row = T.Bind(T.min(group * self.lanes, chunk_rows - self.lanes))
                self._scatter(held, row, token, first_row + row)

    def _gather(self, columns, token, first) -> None:
        """Emit ``columns[(lanes + k) * width + t] = x[token + t, first + k]`` for the features k of one block.

        Features come in squares of ``lanes``. The last square is moved back to end at the last feature, and may so
        begin before the block: that is what the spare rows are for. Tokens past the last repeat it.
        """
        lanes, width, tokens = self.lanes, self.sums.width, self.tile.grid_columns
        x = self.buffers.x
        if self.depth < lanes:
            with T.serial(self.depth) as k, T.serial(width) as t:
                source = T.min(token + t, tokens - 1) * self.depth + k
                store(columns, (lanes + k) * width + t, load(x, source, 1), 1)
            return
        with T.serial(-(-self.block // lanes)) as square:
            k = T.Bind(T.min(first + square * lanes, self.depth - lanes))
            with T.serial(width // lanes) as v:
                start = T.Bind(v * lanes)
                lines = [T.min(token + start + i, tokens - 1) * self.depth + k for i in range(lanes)]
                for i, column in enumerate(transposed([load(x, line, lanes) for line in lines])):
                    store(columns, (k - first + (lanes + i)) * width + start, column, lanes)

    def _scatter(self, held, row, token, feature) -> None:
        """Emit the epilogue and store of ``lanes`` rows of sums, transposed back to features by token."""
        whole, rest = divmod(self.tile.columns, self.lanes)
        with T.serial(whole) as v:
            self._scatter_square(held, row, token, feature, v * self.lanes, self.lanes)
        if rest:
            self._scatter_square(held, row, token, feature, whole * self.lanes, rest)

    def _scatter_square(self, held, row, token, feature, start, tokens: int) -> None:
        lanes = self.lanes
        square = registers(lanes, lanes, on_stack=True)
        lines = [(row + i) * self.sums.width + start for i in range(lanes)]
        for i, line in enumerate(transposed([load(held, line, lanes) for line in lines])):
            store(square, i * lanes, line, lanes)
        with T.serial(tokens) as t:
            index = T.Bind((token + start + t) * self.features + feature)
            value = load(square, t * lanes, lanes)
            store_result(self.buffers, index, value, lanes, min(lanes, self.features), self.activation)
