"""Linear layer with unstructured zeros on several tokens.

Tokens fill the vectors. Where an operand does not come in tiles of [features, tokens] (see ``token_tiles``), a tile of
it is transposed on the way into a small buffer, one reduction block at a time; where results do not go out in tiles,
they are transposed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel, Tiled
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.emit import arguments, building, load, prefetch, registers, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile, row_chunks
from graphprune.backend.kernels.token_tiles import gather_tile, line_features, tiled_shape, token_tile
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 8192  # input floats of one reduction block of a tile, about what stays in a first-level cache
_NEAR_FLOATS = 2**16  # sums that a chunk of rows lays aside between blocks, to stay in a second-level cache


def sparse_linear(
    weight: np.ndarray,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
    tiled: Tiled,
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for ``x`` [..., in] and ``weight`` [out, in] whose zeros cost nothing.

    ``tiled`` says which operands are in tiles of ``token_tile``.
    """
    features, depth = weight.shape
    lanes = target.lanes
    tile = token_tile(x_shape, target, choice.vectors)
    width = tile.pitch
    blocks = max(1, round(depth * width / (choice.block_floats or _CACHE_FLOATS)))
    block = -(-depth // blocks)
    # Results are transposed in squares of `lanes`, so there are at least that many rows, if need be empty ones.
    rows = features if tiled.out else max(features, lanes)
    # The first rows of the buffer of gathered inputs are spare: see `gather_tile`.
    spare = 0 if tiled.x else line_features(depth, lanes)
    offsets = (np.arange(block) + spare) * width
    least = -(-rows * width // _NEAR_FLOATS)
    chunks = row_chunks(rows, tile.count, target.cores, granule=4 * lanes, least=least)
    # As many rows as are transposed together, at least.
    run = max(-(-rows // chunks), 1 if tiled.out else line_features(features, lanes))
    padded = np.pad(weight, ((0, rows - features), (0, 0)))
    packed = pack_csr(padded, offsets, block * width if tiled.x else 0, run)
    biases = np.pad(bias_constant(bias, epilogue, features), (0, rows - features))
    constants = (*packed.arrays, biases)
    in_shape = tiled_shape(tile, depth) if tiled.x else tuple(x_shape)
    out_shape = tiled_shape(tile, features) if tiled.out else (*x_shape[:-1], features)
    with building("sparse_linear") as emitter:
        added = tiled_shape(tile, features) if tiled.residual else out_shape
        buffers = arguments(in_shape, out_shape, constants, residual=epilogue.residual, residual_shape=added)
        sums = CsrSums(buffers.constants, packed, range(0, width, lanes), lanes, target.registers)
        tasks = _Tasks(buffers, sums, tile, depth, block, spare, rows, features, epilogue.activation, tiled)
        tasks.emit(target.cores)
    blocking = f"{packed.blocks} blocks of {block} features, {packed.rows // run} row chunks"
    note = f"csr tile {tile.columns} tokens, {blocking}, {packed.note}, {tiled}"
    return Kernel("sparse_linear", emitter.function, constants, out_shape, note=note, tiled=tiled)


class _Tasks:
    """Emits the parallel loop over (token tile, chunk of output features)."""

    def __init__(
        self,
        buffers,
        sums: CsrSums,
        tile: Tile,
        depth: int,
        block: int,
        spare: int,
        rows: int,
        features: int,
        activation: str,
        tiled: Tiled,
    ):
        self.buffers, self.sums, self.tile = buffers, sums, tile
        self.depth, self.block, self.spare, self.rows, self.features = depth, block, spare, rows, features
        self.activation, self.tiled, self.lanes = activation, tiled, tile.lanes

    def emit(self, cores: int) -> None:
        run, width = self.sums.packed.run, self.sums.width
        runs = self.sums.packed.rows // run
        with shared_loop(self.tile.count * runs, cores) as task:
            number, index = T.Bind(task % runs), T.Bind(task // runs)
            first_row = T.Bind(T.min(number * run, self.rows - run))
            _, token = self.tile.origin(index)
            source, start, fill = self.buffers.x, T.Bind(index * (self.depth * width)), None
            if not self.tiled.x:
                source, start = workspace((self.block + 2 * self.spare) * width), 0
                fill = self._gather(source, token)
            target = T.Bind((index * self.features + first_row) * width)
            finish, ahead = self._to_tiles(target) if self.tiled.out else (None, None)
            held = self.sums.over_blocks(
                first_row, run, source, start, fill, finish, ahead=ahead, first_place=number * run
            )
            if not self.tiled.out:
                together = line_features(self.features, self.lanes)
                with T.serial(-(-run // together)) as group:
                    row = T.Bind(T.min(group * together, run - together))
                    self._scatter(held, row, token, first_row + row, together, T.Bind(index * (self.features * width)))

    def _gather(self, columns, token):
        """Return what emits the transposition of the tile's inputs of one block to the buffer ``columns``."""

        def fill(block) -> None:
            base = self.spare * self.sums.width
            gather_tile(self.buffers.x, self.depth, self.tile, token, block * self.block, self.block, columns, base)

        return fill

    def _to_tiles(self, target) -> tuple[Callable, Callable]:
        """Return what emits the epilogue and the store of a row, from ``target`` on, and what asks for its memory."""

        def finish(sums, row) -> None:
            line = T.Bind(target + row * self.sums.width)
            for offset in range(0, self.sums.width, self.lanes):
                value = load(sums, offset, self.lanes)
                store_result(self.buffers, line + offset, value, self.lanes, self.lanes, self.activation)

        def ahead(row) -> None:
            line = T.Bind(target + row * self.sums.width)
            for offset in range(0, self.sums.width, LINE_FLOATS):
                prefetch(self.buffers.out, line + offset, write=True)
                if self.buffers.residual is not None:
                    prefetch(self.buffers.residual, line + offset, near=True)

        return finish, ahead

    def _scatter(self, held, row, token, feature, count: int, tile_start) -> None:
        """Emit the epilogue and store of ``count`` rows of sums, transposed back to features by token."""
        whole, rest = divmod(self.tile.columns, self.lanes)
        with T.serial(whole) as v:
            self._scatter_lines(held, row, token, feature, count, v * self.lanes, self.lanes, tile_start)
        if rest:
            self._scatter_lines(held, row, token, feature, count, whole * self.lanes, rest, tile_start)

    def _scatter_lines(self, held, row, token, feature, count: int, start: Any, tokens: int, tile_start) -> None:
        lanes, width, buffers, residual = self.lanes, self.sums.width, self.buffers, None
        if self.tiled.residual:
            buffers, residual = replace(buffers, residual=None), buffers.residual

        def line(i: int) -> Any:
            value = load(held, (row + i) * width + start, lanes)
            if residual is None:
                return value
            # Rows that only fill up a square have no residual.
            of_row = feature + i if self.features >= lanes else min(i, self.features - 1)
            return value + load(residual, tile_start + of_row * width + start, lanes)

        square = registers(lanes, count, on_stack=True)
        for part in range(0, count, lanes):
            for i, vector in enumerate(transposed([line(part + i) for i in range(lanes)])):
                store(square, i * count + part, vector, lanes)
        with T.serial(tokens) as t:
            index = T.Bind((token + start + t) * self.features + feature)
            for part in range(0, count, lanes):
                value = load(square, t * count + part, lanes)
                stored = min(lanes, self.features)
                store_result(buffers, index + part, value, lanes, stored, self.activation)
