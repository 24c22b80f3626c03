"""Convolution with unstructured zeros: one broadcast weight times a tile of shifted input positions per non-zero."""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.emit import arguments, building, load, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.tiling import Tile, choose_tile, row_chunks
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 8192  # input floats of one reduction block of a tile, about what stays in a first-level cache
_GATHER_REUSE = 8  # non-zeros per input channel from which on gathering a tile's input pays


def sparse_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of a convolution whose zeros in ``weight`` [out, in / groups, kh, kw] cost nothing."""
    rows, channels, kernel_height, kernel_width = weight.shape
    groups = geometry.channels // channels
    taps = kernel_height * kernel_width
    vectors = choice.vectors or target.registers - 4
    tile = choose_tile(geometry.rows, geometry.columns, geometry.lanes, vectors, overhead=3.0, reach=geometry.reach)
    channel_block = _channel_block(geometry, tile, channels, choice.block_floats or _CACHE_FLOATS)
    chunks = row_chunks(rows, geometry.batch * tile.count, target.cores, granule=16)
    gathers = (
        np.count_nonzero(weight) >= _GATHER_REUSE * channels * chunks if choice.gathers is None else choice.gathers
    )
    gathers = gathers and geometry.single_tap and groups == 1
    if gathers:
        offsets, block_stride = np.arange(channel_block) * (len(tile.starts) * geometry.lanes), 0
    else:
        offsets, block_stride = geometry.reduction_offsets(channel_block), channel_block * geometry.channel_size
    packed = pack_csr(weight.reshape(rows, channels * taps), offsets, block_stride)
    constants = (packed.values, packed.offsets, packed.pointers, bias_constant(bias, epilogue, rows))
    with building("sparse_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = planes_of(buffers.x, geometry)
        shifts = [row * geometry.pitch + column for row, column in tile.vectors]
        if gathers:
            shifts = [v * geometry.lanes for v in range(len(tile.vectors))]
        group_stride = channels * geometry.channel_size if groups > 1 else 0
        sums = CsrSums(buffers.constants, packed, shifts, geometry.lanes, groups, group_stride)
        gathered = channel_block if gathers else 0
        _Tasks(buffers, planes, sums, geometry, tile, gathered, epilogue.activation).emit(chunks)
    note = (
        f"csr tile {tile.rows}x{tile.columns}, {packed.blocks} blocks of {channel_block} channels"
        f"{' gathered' if gathers else ''}, {chunks} row chunks, {packed.note}"
    )
    return Kernel("sparse_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _channel_block(geometry: ConvGeometry, tile: Tile, channels: int, cache_floats: int) -> int:
    """Return how many of a row's ``channels`` of a tile's input fit the cache together; all of them if nearly so."""
    rows = (tile.rows + geometry.reach) * len(geometry.phases)
    per_channel = rows * (tile.columns if geometry.single_tap else min(tile.columns + geometry.lanes, geometry.pitch))
    fitting = max(8, cache_floats // per_channel)
    if fitting * 1.5 >= channels:
        return channels
    blocks = -(-channels // fitting)
    return -(-channels // blocks)


class _Tasks:
    """Emits the parallel loop over (sample, position tile, chunk of output channels).

    With ``gathered`` > 0 every task copies its tile of input, that many channels at a time, to a small buffer first:
    aligned, contiguous, and used by many rows.
    """

    def __init__(
        self, buffers, planes, sums: CsrSums, geometry: ConvGeometry, tile: Tile, gathered: int, activation: str
    ):
        self.buffers, self.planes, self.sums, self.geometry, self.tile = buffers, planes, sums, geometry, tile
        self.gathered, self.activation = gathered, activation

    def emit(self, chunks: int) -> None:
        geometry, tile, sums = self.geometry, self.tile, self.sums
        chunk_rows = -(-sums.rows // chunks)
        plane = geometry.rows * geometry.columns
        with T.parallel(geometry.batch * tile.count * chunks) as task:
            first_row = T.Bind(T.min(task % chunks * chunk_rows, sums.rows - chunk_rows))
            sample = T.Bind(task // chunks // tile.count)
            y, x = tile.origin(task // chunks % tile.count)
            start = T.Bind(sample * geometry.sample_size + y * geometry.pitch + x)
            target = T.Bind((sample * sums.rows + first_row) * plane + y * geometry.columns + x)
            source, fill, position = self.planes, None, start
            if self.gathered:
                source = workspace(self.gathered * sums.width)
                fill, position = lambda block: self._gather(source, start, block * self.gathered), 0
            if sums.blocks == 1:
                if fill is not None:
                    fill(0)
                with T.serial(chunk_rows) as row:
                    self._finish(sums.in_registers(first_row + row, source, position), 0, target + row * plane)
            else:
                held = sums.in_workspace(first_row, chunk_rows, source, position, fill)
                with T.serial(chunk_rows) as row:
                    self._finish(held, row * sums.width, target + row * plane)

    def _gather(self, source, start, first_channel) -> None:
        """Emit the copy of one block's channels of the tile; channels past the last repeat it."""
        geometry, lanes = self.geometry, self.geometry.lanes
        with T.serial(self.gathered) as k:
            channel = T.min(first_channel + k, geometry.channels - 1)
            line = T.Bind(start + channel * geometry.channel_size)
            for v, column in enumerate(self.tile.starts):
                store(source, k * self.sums.width + v * lanes, load(self.planes, line + column, lanes), lanes)

    def _finish(self, held, base, target) -> None:
        store_tile(self.buffers, held, base, self.tile, target, self.geometry.columns, self.activation)
