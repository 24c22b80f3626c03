"""Depthwise convolution: strips of rows are padded into small planes and filtered while they are in the cache.

What is copied must have left the store buffer before it can be read in other vectors than it was written in, so
several small channels are copied before the first of them is filtered.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.depthwise_filter import DepthwiseFilter, most_vectors, strip_rows
from graphprune.backend.kernels.emit import (
    Arguments,
    arguments,
    building,
    fetch_share,
    workspace,
)
from graphprune.backend.kernels.epilogue import bias_constant
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import fill_channel, fill_strip
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.target import CompileTarget

_STRIP_FLOATS = 4096  # of planes that are filled and then read: 16 KiB, half of a first-level cache
_MANY_GROUPS = 8  # for each thread, of which one more or less does not matter
_MOST_CHANNELS = 8  # filled together


def depthwise_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of a convolution with as many groups as channels; ``weight`` is [channels * m, 1, kh, kw]."""
    rows = weight.shape[0]
    weights = np.ascontiguousarray(weight.reshape(-1), np.float32)
    constants = (weights, bias_constant(bias, epilogue, rows))
    vectors = choice.vectors or most_vectors(geometry)
    with building("depthwise_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        filters = _Filters(buffers, geometry, rows // geometry.channels, vectors, epilogue.activation)
        filters.emit(target.cores)
    note = f"depthwise tile {filters.tile.rows}x{filters.tile.columns}, {filters.strips} strips"
    return Kernel("depthwise_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


class _Filters:
    """Emits the parallel loop over groups of channels."""

    def __init__(
        self, buffers: Arguments, geometry: ConvGeometry, multiplier: int, vectors: int, activation: str
    ) -> None:
        self.buffers, self.geometry, self.multiplier = buffers, geometry, multiplier
        self.strip_rows = strip_rows(geometry, _STRIP_FLOATS)
        self.strips = -(-geometry.rows // self.strip_rows)
        self.strip = geometry if self.strips == 1 else geometry.strip(self.strip_rows)
        self.filter = DepthwiseFilter(buffers, self.strip, geometry, multiplier, vectors, activation)
        self.tile = self.filter.tile

    def emit(self, cores: int) -> None:
        """Emit the whole convolution for ``cores`` threads."""
        geometry, size = self.geometry, self.strip.channel_size
        channels = geometry.batch * geometry.channels
        together = _channels_together(channels, min(_MOST_CHANNELS, _STRIP_FLOATS // size), cores)
        with shared_loop(channels // together, cores) as group, T.serial(self.strips) as strip:
            first_row = T.Bind(T.min(strip * self.strip_rows, geometry.rows - self.strip_rows))
            first = T.Bind(group * together)
            if geometry.direct:
                self._filter_all(self.buffers.x, first, together, first_row, first * size)
                return
            planes = workspace(together * size + geometry.lanes)
            with T.serial(together) as step:
                self._fill(planes, step * size, first + step, first_row)
            self._filter_all(planes, first, together, first_row, 0)

    def _fill(self, planes, base, channel, first_row) -> None:
        if self.strips == 1:
            fill_channel(self.buffers.x, channel, planes, base, self.geometry)
        else:
            fill_strip(self.buffers.x, channel, planes, base, self.geometry, self.strip, first_row)

    def _filter_all(self, planes, first, together: int, first_row, start) -> None:
        """Emit the filters of ``together`` channels from ``first`` on, whose planes begin at ``start``."""
        tiles, geometry = self.tile.count, self.geometry
        size, ahead = self._next_input(first, together, first_row)
        with T.serial(together) as step, T.serial(self.multiplier) as copy, T.serial(tiles) as position:
            if not geometry.direct:
                fetch_share(self.buffers.x, ahead + step * size, size, position, tiles)
            base = start + step * self.strip.channel_size
            self.filter.emit(planes, base, first + step, copy, first_row, position)

    def _next_input(self, first, together: int, first_row):
        """Return how many floats of input each channel's filters fetch ahead, and where the first one's begin."""
        channel_size = self.geometry.height * self.geometry.width
        if self.strips == 1:
            return channel_size, T.Bind((first + together) * channel_size)
        row_size = self.geometry.stride[0] * self.geometry.width
        return self.strip_rows * row_size, T.Bind(first * channel_size + (first_row + self.strip_rows) * row_size)


def _channels_together(channels: int, most: int, cores: int) -> int:
    """Return how many channels make a group, at most ``most``, so that groups share out evenly to the threads."""
    for count in range(min(most, channels // cores), 1, -1):
        groups = channels // count
        if channels % count == 0 and (groups % cores == 0 or groups >= _MANY_GROUPS * cores):
            return count
    return 1
