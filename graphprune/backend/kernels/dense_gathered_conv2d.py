"""Dense convolution of many output channels: each tile's input is copied together before all channels read it.

A tile is a run of output positions. Its input, a cache line here and there, is copied together tap after tap, in blocks
of the reduction that stay in the first-level cache while the weights of all output channels stream past them. Sums
wait in a workspace from one block to the next.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_blocked_panels, tile_starts
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.emit import (
    Arguments,
    arguments,
    building,
    fetch_share,
    load,
    prefetch,
    splat,
    store,
    workspace,
)
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.position_copy import PositionCopy
from graphprune.backend.kernels.register_block import Operand, RegisterBlock, most_rows, reduction_block
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import LINE_FLOATS, row_chunks
from graphprune.backend.target import CompileTarget

_PANELS = 6  # blocks of output channels from which on copying a tile's input together pays
_PANELS_SINGLE_TAP = 24  # the same for 1x1 kernels, whose input one panel reads in few pieces anyway
_MOST_STRIDED = 1024  # channels of whole cache lines up to which a 1x1 kernel best reads a tile where it is
_NEAR_PAGES = 48  # channels whose pages stay known to the first-level address cache while results are stored
_BLOCK_FLOATS = 4096  # inputs of one reduction block take 16 KiB: half of a first-level cache
_FETCHED_AT_ONCE = 64  # steps of the reduction up to which prefetches are not spread out
_CACHED_WEIGHTS = 65536  # weights up to which they stay in a second-level cache


def suits_gathering(geometry: ConvGeometry, out_channels: int, target: CompileTarget, choice: Choice) -> bool:
    """Say whether the kernel can take an ungrouped layer, and is chosen for it or likely to be the faster one."""
    plane = geometry.out_height * geometry.out_width
    if plane < (choice.vectors or 1) * geometry.lanes or choice.gathers is False:
        return False
    if choice.gathers:
        return True
    if geometry.single_tap and geometry.channel_size % LINE_FLOATS == 0:
        return geometry.channels > _MOST_STRIDED or out_channels >= 2 * geometry.channels > 2 * _NEAR_PAGES
    rows = most_rows(min(3, plane // geometry.lanes), target.registers)
    return out_channels >= (_PANELS_SINGLE_TAP if geometry.single_tap else _PANELS) * rows


def dense_gathered_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of an ungrouped convolution with ``weight`` [out, in, kh, kw]."""
    rows = weight.shape[0]
    matrix = weight.reshape(rows, -1)
    plane = geometry.out_height * geometry.out_width
    block = _register_block(plane, rows, matrix.shape[1], target, choice.vectors)
    length = reduction_block(matrix.shape[1], (choice.block_floats or _BLOCK_FLOATS) // block.width)
    starts = tile_starts(plane, block.width)
    copy = PositionCopy(geometry, starts, block.width)
    constants = (
        pack_blocked_panels(matrix, block.rows, length),
        geometry.reduction_offsets().astype(np.int32),
        copy.table,
        bias_constant(bias, epilogue, rows),
    )
    with building("dense_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = planes_of(buffers.x, geometry, target.cores, copy.slack)
        product = _Product(buffers, planes, geometry, copy, matrix.shape, length, block, epilogue.activation)
        product.emit(target.cores)
    blocks = -(-matrix.shape[1] // length)
    note = f"dense tile {block.rows} channels x {block.width} positions, {blocks} blocks"
    return Kernel("dense_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _register_block(plane: int, rows: int, depth: int, target: CompileTarget, chosen: int | None) -> RegisterBlock:
    """Return the block of output channels x positions that takes the least time."""
    # One register takes the next operand while a product goes on; a chosen width is tried with all of them.
    registers = target.registers - (chosen is None)
    candidates = [
        RegisterBlock(min(rows, most_rows(vectors, registers)), vectors, target.lanes)
        for vectors in (range(1, 5) if chosen is None else (chosen,))
        if vectors * target.lanes <= plane
    ]
    return min(candidates, key=lambda b: -(-plane // b.width) * -(-rows // b.rows) * b.cost(depth))


class _Product:
    """Emits the parallel loop over (sample, position tile, chunk of panels)."""

    def __init__(
        self,
        buffers: Arguments,
        planes,
        geometry: ConvGeometry,
        copy: PositionCopy,
        matrix_shape: tuple[int, ...],
        length: int,
        block: RegisterBlock,
        activation: str,
    ) -> None:
        self.buffers, self.planes, self.geometry, self.copy, self.block = buffers, planes, geometry, copy, block
        self.weights, self.taps, self.table, self.bias = buffers.constants
        self.rows, self.depth = matrix_shape
        self.length, self.activation = length, activation
        self.plane = geometry.out_height * geometry.out_width
        self.tiles = len(copy.table)
        self.panels = -(-self.rows // block.rows)

    def emit(self, cores: int) -> None:
        """Emit the whole product for ``cores`` threads."""
        geometry = self.geometry
        chunks = row_chunks(self.panels, geometry.batch * self.tiles, cores)
        share = -(-self.panels // chunks)
        with shared_loop(geometry.batch * self.tiles * chunks, cores) as task:
            sample = T.Bind(task // (self.tiles * chunks))
            tile = T.Bind(task // chunks % self.tiles)
            position = T.Bind(T.min(tile * self.block.width, self.plane - self.block.width))
            origin = T.Bind(sample * geometry.sample_size)
            first = T.Bind(task % chunks * share)
            count = T.Bind(T.min(share, self.panels - first))
            gathered = workspace(self.length * self.block.width + self.copy.slack)
            target = T.Bind(sample * self.rows * self.plane + position)
            if self.length == self.depth:
                self.copy.emit(self.planes, origin, self.table, tile, self.taps, 0, self.depth, gathered)
                spread = self.depth > _FETCHED_AT_ONCE
                if geometry.single_tap and not spread:
                    self._fetch_share(origin, tile, 0, self.depth, 0, 1)
                with T.serial(count) as step:
                    if geometry.single_tap and spread:
                        self._fetch_share(origin, tile, 0, self.depth, step, count)
                    self._at_once(gathered, T.Bind(first + step), target)
                return
            held = workspace(share * self.block.rows * self.block.width)
            self._start(held, first, count)
            whole, rest = divmod(self.depth, self.length)
            with T.serial(whole) as part:
                start = T.Bind(part * self.length)
                self._part(gathered, held, origin, tile, first, count, start, self.length)
            if rest:
                self._part(gathered, held, origin, tile, first, count, whole * self.length, rest)
            self._finish(held, first, count, target)

    def _fetch_share(self, origin, tile, start, length: int, step, count) -> None:
        """Emit prefetches of share number ``step``, of ``count``, of what a 1x1 convolution copies next.

        That is the next ``length`` steps of the reduction, or the first ones of the next tile.
        """
        wraps = T.Bind(T.Cast("int32", start + length >= self.depth))
        run = T.Bind(T.min(tile + wraps, self.tiles - 1))
        following = T.Bind((start + length) * (1 - wraps))
        each = T.Bind((length + count - 1) // count)
        begin = T.Bind(step * each)
        steps = T.Bind(T.max(T.min(T.min(each, length - begin), self.depth - following - begin), 0))
        self.copy.fetch(self.planes, origin, self.table, run, self.taps, following + begin, steps)

    def _row(self, panel):
        return T.Bind(T.min(panel * self.block.rows, self.rows - self.block.rows))

    def _at_once(self, gathered, panel, target) -> None:
        """Emit one register block over the whole reduction, and the store of its result."""
        block = self.block
        row = self._row(panel)
        place = T.Bind(target + row * self.plane)
        self._fetch_residual(place)
        sums = block.allocate()
        for i in range(block.rows):
            for v in range(block.vectors):
                store(sums, block.slot(i, v), splat(self.bias[row + i], block.lanes), block.lanes)
        self._accumulate(sums, gathered, T.Bind(panel * (self.depth * block.rows)), self.depth)
        for i in range(block.rows):
            self._store_row(sums, block.slot(i, 0), place + i * self.plane)

    def _fetch_residual(self, place) -> None:
        """Emit prefetches of the residual of a block, if there is one."""
        if self.buffers.residual is None:
            return
        for i in range(self.block.rows):
            for line in range(0, self.block.width + LINE_FLOATS - 1, LINE_FLOATS):
                prefetch(self.buffers.residual, place + (i * self.plane + min(line, self.block.width - 1)), near=True)

    def _start(self, held, first, count) -> None:
        """Emit the sums' first value, the bias."""
        block = self.block
        with T.serial(count) as step:
            row = self._row(first + step)
            for i in range(block.rows):
                bias = T.Bind(splat(self.bias[row + i], block.lanes))
                for v in range(block.vectors):
                    store(held, step * (block.rows * block.width) + block.slot(i, v), bias, block.lanes)

    def _part(self, gathered, held, origin, tile, first, count, start, length: int) -> None:
        """Emit ``length`` steps of the reduction from ``start`` on, for all panels of the task."""
        block = self.block
        self.copy.emit(self.planes, origin, self.table, tile, self.taps, start, length, gathered)
        with T.serial(count) as step:
            if self.geometry.single_tap:
                self._fetch_share(origin, tile, start, length, step, count)
            base = T.Bind(step * (block.rows * block.width))
            sums = block.allocate()
            block.resume(sums, held, base)
            weights = T.Bind(start * (self.panels * block.rows) + (first + step) * (length * block.rows))
            if self.rows * self.depth > _CACHED_WEIGHTS:
                fetch_share(self.weights, weights + length * block.rows, length * block.rows, 0, 1)
            self._accumulate(sums, gathered, weights, length)
            block.hold(sums, held, base)

    def _accumulate(self, sums, gathered, weights, length: int) -> None:
        narrow = Operand(self.weights, weights, self.block.rows)
        self.block.multiply(sums, length, Operand(gathered, 0, self.block.width), narrow)

    def _finish(self, held, first, count, target) -> None:
        """Emit the epilogue and the store of all held sums."""
        block = self.block
        with T.serial(count) as step:
            place = T.Bind(target + self._row(first + step) * self.plane)
            self._fetch_residual(place + 2 * block.rows * self.plane)
            for i in range(block.rows):
                base = T.Bind(step * (block.rows * block.width) + block.slot(i, 0))
                self._store_row(held, base, place + i * self.plane)

    def _store_row(self, held, base, place) -> None:
        lanes = self.block.lanes
        for v in range(self.block.vectors):
            value = load(held, base + v * lanes, lanes)
            store_result(self.buffers, place + v * lanes, value, lanes, lanes, self.activation)
