"""Copies what one tile of output positions reads of a channel, so that every tap of the kernel reads whole vectors.

In planes, taps beside each other read the same rows shifted by an element: their vectors straddle cache lines, which
costs a second load. In a copy with rows of its own for every tap along the width, they never do.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, prefetch, store
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile

_CHANNELS_AHEAD = 8  # of the one that is copied: those whose input is asked for


class TileCopy:
    """The layout of the copy of a tile's input.

    Attributes:
        size: floats of one channel.
        shifts: where each vector of the tile lies, relative to a tap's offset.
        tap_offsets: int64 [kh * kw], where each tap's first position lies inside a channel.
    """

    def __init__(self, geometry: ConvGeometry, tile: Tile) -> None:
        """Lay out the input of ``tile``'s positions."""
        self._geometry, self._tile = geometry, tile
        self._lines: list[int] = []
        offsets = np.zeros(geometry.kernel, np.int64)
        for s in range(geometry.kernel[1]):
            for phase in range(geometry.stride[0]):
                taps = [r for r in range(geometry.kernel[0]) if r * geometry.dilation[0] % geometry.stride[0] == phase]
                first = {r: r * geometry.dilation[0] // geometry.stride[0] for r in taps}
                rows = sorted({first[r] + row for r in taps for row in range(tile.rows)})
                for r in taps:
                    offsets[r, s] = (len(self._lines) + rows.index(first[r])) * tile.pitch
                if taps:
                    top = geometry.tap_offset(taps[0], s) - first[taps[0]] * geometry.pitch
                    self._lines += [top + row * geometry.pitch for row in rows]
        self.size = len(self._lines) * tile.pitch
        self.shifts = [v * tile.lanes for v in range(len(tile.vectors))]
        self.tap_offsets = offsets.ravel()

    def offsets(self, channels: int) -> np.ndarray:
        """Return where (channel, r, s) of ``channels`` channels lies in their copy: int64 [channels * kh * kw]."""
        return (np.arange(channels)[:, None] * self.size + self.tap_offsets).ravel()

    def emit(self, planes, start, first_channel, count: int, target) -> None:
        """Emit the copy of ``count`` channels from ``first_channel`` on; channels past the last repeat it.

        ``start`` is where the tile's first position lies in the first channel of its sample.
        """
        geometry, tile = self._geometry, self._tile
        with T.serial(count) as k:
            channel = T.min(first_channel + k, geometry.channels - 1)
            origin = T.Bind(start + channel * geometry.channel_size)
            if geometry.direct:
                # A tile's part of a channel is a few lines, and the next channel's are far away: no processor
                # foresees it.
                ahead = _CHANNELS_AHEAD * geometry.channel_size
                for column in range(0, tile.columns, LINE_FLOATS):
                    prefetch(planes, origin + (ahead + column), near=True)
            places = ((line + column) for line in self._lines for column in tile.starts)
            for v, place in enumerate(places):
                store(target, k * self.size + v * tile.lanes, load(planes, origin + place, tile.lanes), tile.lanes)
