"""Convolution with unstructured zeros: one broadcast weight times a tile of shifted input positions per non-zero."""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.emit import arguments, building, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import fill_planes
from graphprune.backend.kernels.tiling import Tile, choose_tile, row_chunks
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 8192  # input floats of one reduction block of a tile, about what stays in a first-level cache


def sparse_conv2d(
    weight: np.ndarray, bias: np.ndarray | None, geometry: ConvGeometry, epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of an ungrouped convolution whose zeros in ``weight`` [out, in, kh, kw] cost nothing."""
    rows, channels, kernel_height, kernel_width = weight.shape
    taps = kernel_height * kernel_width
    tile = choose_tile(geometry.rows, geometry.columns, geometry.lanes, target.registers - 4, overhead=3.0, reach=geometry.reach)
    channel_block = _channel_block(geometry, tile)
    packed = pack_csr(weight.reshape(rows, channels * taps), geometry.reduction_offsets(), channel_block * taps)
    chunks = row_chunks(rows, geometry.batch * tile.count, target.cores, granule=16)
    constants = (packed.values, packed.offsets, packed.pointers, bias_constant(bias, epilogue, rows))
    with building("sparse_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = buffers.x
        if not geometry.direct:
            planes = workspace(geometry.workspace_size)
            fill_planes(buffers.x, planes, geometry)
        shifts = [row * geometry.pitch + column for row, column in tile.vectors]
        sums = CsrSums(planes, buffers.constants, packed, shifts, geometry.lanes)
        _emit_tasks(sums, buffers, geometry, tile, chunks, epilogue.activation)
    note = f"csr tile {tile.rows}x{tile.columns}, {packed.blocks} blocks of {channel_block} channels, {chunks} row chunks"
    return Kernel("sparse_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _channel_block(geometry: ConvGeometry, tile: Tile) -> int:
    """Return how many channels of a tile's input fit the cache together; all of them if nearly so."""
    rows = (tile.rows + geometry.reach) * len(geometry.phases)
    per_channel = rows * (tile.columns if geometry.single_tap else min(tile.columns + geometry.lanes, geometry.pitch))
    fitting = max(8, _CACHE_FLOATS // per_channel)
    if fitting * 1.5 >= geometry.channels:
        return geometry.channels
    blocks = -(-geometry.channels // fitting)
    return -(-geometry.channels // blocks)


def _emit_tasks(sums: CsrSums, buffers, geometry: ConvGeometry, tile: Tile, chunks: int, activation: str) -> None:
    """Emit the parallel loop over (sample, position tile, chunk of output channels)."""
    chunk_rows = -(-sums.rows // chunks)
    plane = geometry.rows * geometry.columns

    def finish(held, base, row, target) -> None:
        store_tile(buffers, held, base, tile, target + row * plane, geometry.columns, activation)

    with T.parallel(geometry.batch * tile.count * chunks) as task:
        first_row = T.Bind(T.min(task % chunks * chunk_rows, sums.rows - chunk_rows))
        sample = T.Bind(task // chunks // tile.count)
        y, x = tile.origin(task // chunks % tile.count)
        start = T.Bind(sample * geometry.sample_size + y * geometry.pitch + x)
        target = T.Bind((sample * sums.rows + first_row) * plane + y * geometry.columns + x)
        if sums.blocks == 1:
            with T.serial(chunk_rows) as row:
                finish(sums.in_registers(first_row + row, start), 0, row, target)
        else:
            held = sums.in_workspace(first_row, chunk_rows, start)
            with T.serial(chunk_rows) as row:
                finish(held, row * sums.width, row, target)
