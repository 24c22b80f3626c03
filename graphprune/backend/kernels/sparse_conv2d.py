"""Convolution with unstructured zeros: one broadcast weight times a tile of shifted input positions per non-zero."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr, pack_csr_together
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel, PlaneTile, Tiled
from graphprune.backend.kernels.csr_sums import TOGETHER, CsrSums
from graphprune.backend.kernels.emit import arguments, building, prefetch, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.plane_tiles import TiledResults, ask_for_block, tiled_planes_shape
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tile_copy import TileCopy
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile, choose_tile, row_chunks
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 7168  # input floats of one reduction block of a tile, about what stays in a first-level cache
_STEP_OVERHEAD = 1.5  # of one non-zero, in vector operations: its value and its offset are loaded too
_PARTIAL_ROWS = 1.15  # of the time of a tile of whole rows, measured on 3x3 kernels
_FAR_BYTES = 2**19  # from which on a tensor is taken to be further away than the second-level cache
_OUTPUT_AHEAD = 2  # rows from the one that is computed to the one whose output is asked for
_RESIDUAL_AHEAD = 4  # and whose residual is: unlike stores, sums wait for it
_MANY_BLOCKS = 8  # from which on little has to be added to fill up the ends of rows
_GATHER_REUSE = 8  # non-zeros per input channel and tap from which on copying a tile's input together pays


def sparse_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
    tiled: Tiled,
) -> Kernel:
    """Return the kernel of a convolution whose zeros in ``weight`` [out, in / groups, kh, kw] cost nothing.

    ``tiled`` says which operands are in tiles; ``plane_tile`` tells which may be.
    """
    rows, channels, kernel_height, kernel_width = weight.shape
    groups = geometry.channels // channels
    taps = kernel_height * kernel_width
    tile = _tile(geometry, target, choice.vectors)
    chunks = row_chunks(rows, geometry.batch * tile.count, target.cores, granule=16)
    gathers = choice.gathers
    if gathers is None:
        # Where rows of planes start on vectors already, and in strided planes, the copy costs more than it saves.
        suits = geometry.single_tap or (not geometry.aligned and geometry.stride == (1, 1))
        gathers = suits and np.count_nonzero(weight) >= _GATHER_REUSE * channels * taps * chunks
    copy = TileCopy(geometry, tile) if gathers and groups == 1 and not tiled.x else None
    channel_block = _channel_block(
        _channel_floats(geometry, tile, copy, tiled), channels, choice.block_floats or _CACHE_FLOATS
    )
    if tiled.x:
        offsets, block_stride = np.arange(channel_block) * tile.pitch, channel_block * tile.pitch
    elif copy is not None:
        offsets, block_stride = copy.offsets(channel_block), 0
    else:
        offsets, block_stride = geometry.reduction_offsets(channel_block), channel_block * geometry.channel_size
    matrix = weight.reshape(rows, channels * taps)
    if groups == 1 and _ends_matter(matrix, offsets, block_stride):
        packed = pack_csr_together(matrix, offsets, block_stride, TOGETHER)
    else:
        packed = pack_csr(matrix, offsets, block_stride)
    constants = (*packed.arrays, bias_constant(bias, epilogue, rows))
    with building("sparse_conv2d") as emitter:
        in_tiles = tiled_planes_shape(tile, geometry.batch, rows)
        x_shape = tiled_planes_shape(tile, geometry.batch, channels) if tiled.x else geometry.x_shape
        out_shape = in_tiles if tiled.out else geometry.out_shape(rows)
        residual_shape = in_tiles if tiled.residual else geometry.out_shape(rows)
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual, residual_shape=residual_shape)
        planes = buffers.x if tiled.x else planes_of(buffers.x, geometry, target.cores)
        if tiled.x:
            shifts = range(0, tile.pitch, tile.lanes)
        else:
            shifts = copy.shifts if copy else [row * geometry.pitch + column for row, column in tile.vectors]
        group_stride = channels * geometry.channel_size if groups > 1 else 0
        sums = CsrSums(buffers.constants, packed, shifts, geometry.lanes, target.registers, groups, group_stride)
        tasks = _Tasks(buffers, planes, sums, geometry, tile, channel_block, copy, epilogue.activation, tiled)
        tasks.emit(chunks, target.cores)
    note = (
        f"csr tile {tile.rows}x{tile.columns}, {packed.blocks} blocks of {channel_block} channels"
        f"{' gathered' if copy else ''}, {chunks} row chunks, {packed.note}{_tiled_note(tiled)}"
    )
    return Kernel("sparse_conv2d", emitter.function, constants, out_shape, note=note, tiled=tiled)


def plane_tile(geometry: ConvGeometry, groups: int, target: CompileTarget, vectors: int | None) -> PlaneTile | None:
    """Return in which tiles the kernel of a convolution, of at most ``vectors``, takes and gives planes, if it does."""
    if not geometry.single_tap or groups > 1 or geometry.columns < geometry.lanes:
        return None
    return PlaneTile(_tile(geometry, target, vectors), takes=geometry.direct)


def _tile(geometry: ConvGeometry, target: CompileTarget, vectors: int | None) -> Tile:
    # With one tap narrow tiles are better: more channels of them fit the cache.
    most = vectors or (target.registers // 2 if geometry.single_tap else target.registers - 4)
    return choose_tile(
        geometry.rows, geometry.columns, geometry.lanes, most, _STEP_OVERHEAD, geometry.reach, _PARTIAL_ROWS
    )


def _tiled_note(tiled: Tiled) -> str:
    held = [name for name, in_tiles in vars(tiled).items() if in_tiles]
    return f", in tiles: {' '.join(held)}" if held else ""


def _ends_matter(matrix: np.ndarray, offsets: np.ndarray, block_stride: int) -> bool:
    """Say whether to make every row of every block end with a whole step of the loop over its non-zeros.

    No processor foresees where rows of random lengths end; whole steps make that half as bad. For that a block has to
    reach into the block before without longer offsets.
    """
    blocks = -(-matrix.shape[1] // len(offsets))
    reach = int(offsets.max()) + block_stride
    many = blocks >= _MANY_BLOCKS and np.count_nonzero(matrix) >= 2 * TOGETHER * blocks * len(matrix)
    return many and block_stride > 0 and reach <= np.iinfo(np.uint16).max


def _channel_floats(geometry: ConvGeometry, tile: Tile, copy: TileCopy | None, tiled: Tiled) -> int:
    """Return how many floats of a channel the positions of a tile read."""
    if tiled.x:
        return tile.pitch
    if copy is not None:
        return copy.size
    rows = (tile.rows + geometry.reach) * len(geometry.phases)
    return rows * (tile.columns if geometry.single_tap else min(tile.columns + geometry.lanes, geometry.pitch))


def _channel_block(channel_floats: int, channels: int, cache_floats: int) -> int:
    """Return how many of a row's ``channels`` of a tile's input fit the cache together; all of them if nearly so."""
    fitting = max(8, cache_floats // channel_floats)
    if fitting * 1.5 >= channels:
        return channels
    blocks = -(-channels // fitting)
    return -(-channels // blocks)


class _Tasks:
    """Emits the parallel loop over (sample, position tile, chunk of output channels).

    With ``copy`` every task copies its tile of input, ``channel_block`` channels at a time, to a small buffer first:
    aligned, contiguous, and used by many rows. Input in tiles is so already; each block of it is asked for while the
    block before is used.
    """

    def __init__(
        self,
        buffers,
        planes,
        sums: CsrSums,
        geometry: ConvGeometry,
        tile: Tile,
        channel_block: int,
        copy: TileCopy | None,
        activation: str,
        tiled: Tiled,
    ):
        self.buffers, self.planes, self.sums, self.geometry, self.tile = buffers, planes, sums, geometry, tile
        self.channel_block, self.copy, self.activation, self.tiled = channel_block, copy, activation, tiled
        plane = geometry.rows * geometry.columns
        self.far = 4 * geometry.batch * sums.rows * plane >= _FAR_BYTES

    def emit(self, chunks: int, cores: int) -> None:
        geometry, tile, sums = self.geometry, self.tile, self.sums
        chunk_rows = -(-sums.rows // chunks)
        with shared_loop(geometry.batch * tile.count * chunks, cores) as task:
            first_row = T.Bind(T.min(task % chunks * chunk_rows, sums.rows - chunk_rows))
            sample, index = T.Bind(task // chunks // tile.count), T.Bind(task // chunks % tile.count)
            finish = self._finish(sample, index, first_row)
            if self.tiled.x:
                block = self.channel_block * tile.pitch
                start = T.Bind((sample * tile.count + index) * (geometry.channels * tile.pitch))

                def ask(number, row) -> None:
                    ask_for_block(self.planes, start + (number + 1) * block, block, row, chunk_rows)

                sums.over_blocks(first_row, chunk_rows, self.planes, start, finish=finish, beside=ask)
            else:
                y, x = tile.origin(index)
                start = T.Bind(sample * geometry.sample_size + y * geometry.pitch + x)
                source, fill, position = self.planes, None, start
                if self.copy is not None:
                    source = workspace(self.channel_block * self.copy.size)
                    fill, position = partial(self._copy_block, self.copy, source, start), 0
                sums.over_blocks(first_row, chunk_rows, source, position, fill, finish)

    def _finish(self, sample, index, first_row) -> Callable[[Any, Any], None]:
        """Return what emits the fate of a tile's complete sums of a row, counted from ``first_row`` on."""
        geometry, tile, sums = self.geometry, self.tile, self.sums
        if self.tiled.out or self.tiled.residual:
            ahead = (_OUTPUT_AHEAD, _RESIDUAL_AHEAD) if self.far else None
            results = TiledResults(self.buffers, tile, sums.rows, self.tiled, self.activation, ahead)
            starts = results.begin(sample, index, first_row)
            return lambda held, row: results.finish(held, starts, row)
        plane = geometry.rows * geometry.columns
        y, x = tile.origin(index)
        target = T.Bind((sample * sums.rows + first_row) * plane + y * geometry.columns + x)

        def finish(held, row) -> None:
            if self.far:
                self._ask_ahead(target + row * plane)
            store_tile(self.buffers, held, 0, tile, target + row * plane, geometry.columns, self.activation)

        return finish

    def _copy_block(self, copy: TileCopy, target, start, block) -> None:
        copy.emit(self.planes, start, block * self.channel_block, self.channel_block, target)

    def _ask_ahead(self, target) -> None:
        """Emit requests for the lines of a later row's residual, and for those that a later row will be stored to."""
        geometry, tile = self.geometry, self.tile
        plane = geometry.rows * geometry.columns
        together = tile.columns == geometry.columns
        rows, columns = (1, tile.rows * tile.columns) if together else (tile.rows, tile.columns)
        for row in range(rows):
            first = target + row * geometry.columns
            for start in range(0, columns, LINE_FLOATS):
                prefetch(self.buffers.out, first + (_OUTPUT_AHEAD * plane + start), write=True)
            if self.buffers.residual is not None:
                for start in (*range(0, columns, LINE_FLOATS), columns - 1):
                    prefetch(self.buffers.residual, first + (_RESIDUAL_AHEAD * plane + start), near=True)
