"""Depthwise convolution: every channel is padded into a small plane and filtered while it is in the cache."""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, load, registers, splat, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import fill_channel
from graphprune.backend.kernels.tiling import choose_tile
from graphprune.backend.target import CompileTarget


def depthwise_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of a convolution with as many groups as channels; ``weight`` is [channels * m, 1, kh, kw]."""
    rows, _, kernel_height, kernel_width = weight.shape
    multiplier = rows // geometry.channels
    taps = kernel_height * kernel_width
    vectors = choice.vectors or min(8, target.registers - 4)
    tile = choose_tile(geometry.rows, geometry.columns, geometry.lanes, vectors, overhead=3.0)
    weights = np.ascontiguousarray(weight.reshape(-1), np.float32)
    offsets = geometry.reduction_offsets()[:taps]
    constants = (weights, bias_constant(bias, epilogue, rows))
    plane = geometry.rows * geometry.columns
    with building("depthwise_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        packed, biases = buffers.constants
        with T.parallel(geometry.batch * geometry.channels) as channel:
            planes, first = buffers.x, channel * geometry.channel_size
            if not geometry.direct:
                planes, first = workspace(geometry.channel_size + geometry.lanes), 0
                fill_channel(buffers.x, channel, planes, 0, geometry)
            with T.serial(multiplier) as copy, T.serial(tile.count) as position:
                row = T.Bind(channel % geometry.channels * multiplier + copy)
                y, x = tile.origin(position)
                start = T.Bind(first + y * geometry.pitch + x)
                target_index = T.Bind((channel * multiplier + copy) * plane + y * geometry.columns + x)
                sums = registers(len(tile.vectors), tile.lanes)
                for v in range(len(tile.vectors)):
                    store(sums, v * tile.lanes, splat(biases[row], tile.lanes), tile.lanes)
                for tap in range(taps):
                    value = T.Bind(splat(packed[row * taps + tap], tile.lanes))
                    for v, (tile_row, column) in enumerate(tile.vectors):
                        shift = int(offsets[tap]) + tile_row * geometry.pitch + column
                        product = value * load(planes, start + shift, tile.lanes)
                        store(sums, v * tile.lanes, load(sums, v * tile.lanes, tile.lanes) + product, tile.lanes)
                store_tile(buffers, sums, 0, tile, target_index, geometry.columns, epilogue.activation)
    note = f"depthwise tile {tile.rows}x{tile.columns}"
    return Kernel("depthwise_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)
