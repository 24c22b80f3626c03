"""The sums of a depthwise convolution over one tile of positions of one channel, read from its padded planes."""

from __future__ import annotations

from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import Arguments, load, registers, splat, store
from graphprune.backend.kernels.epilogue import store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.tiling import choose_tile

_FEW_TAPS = 9  # up to 3x3, tiles of four vectors are fastest, else of eight
_TILE_OVERHEAD = 3.0  # of one tap, in vector operations


class DepthwiseFilter:
    """Sums the taps of a channel, in registers.

    Attributes:
        strip: the layout of the planes: those of ``geometry``, or of some rows of its output.
        tile: the positions, of a strip, whose sums are in registers together.
    """

    def __init__(
        self,
        buffers: Arguments,
        strip: ConvGeometry,
        geometry: ConvGeometry,
        multiplier: int,
        vectors: int,
        activation: str,
    ) -> None:
        """Prepare filters for planes laid out as ``strip``, whose results are part of an output of ``geometry``.

        The last two of ``buffers.constants`` are the filters and the bias. Each channel of the input gives
        ``multiplier`` channels of the output; a tile has at most ``vectors`` vectors.
        """
        self.buffers, self.strip, self.geometry = buffers, strip, geometry
        self.multiplier, self.activation = multiplier, activation
        self.tile = choose_tile(strip.rows, geometry.columns, geometry.lanes, vectors, overhead=_TILE_OVERHEAD)

    def emit(self, planes, base, channel, copy, first_row, position) -> None:
        """Emit the sums of tile number ``position``, and their epilogue, for filter ``copy`` of ``channel``.

        ``channel`` counts through samples too. Its planes start at ``base``, their first row of output is
        ``first_row``.
        """
        geometry, tile, strip = self.geometry, self.tile, self.strip
        taps = geometry.kernel[0] * geometry.kernel[1]
        packed, biases = self.buffers.constants[-2:]
        row = T.Bind(channel % geometry.channels * self.multiplier + copy)
        y, x = tile.origin(position)
        start = T.Bind(base + y * geometry.pitch + x)
        plane = (channel * self.multiplier + copy) * (geometry.rows * geometry.columns)
        target = T.Bind(plane + (first_row + y) * geometry.columns + x)
        sums = registers(len(tile.vectors), tile.lanes)
        for v in range(len(tile.vectors)):
            store(sums, v * tile.lanes, splat(biases[row], tile.lanes), tile.lanes)
        for tap in range(taps):
            value = T.Bind(splat(packed[row * taps + tap], tile.lanes))
            offset = strip.tap_offset(*divmod(tap, geometry.kernel[1]))
            for v, (tile_row, column) in enumerate(tile.vectors):
                product = value * load(planes, start + (offset + tile_row * geometry.pitch + column), tile.lanes)
                store(sums, v * tile.lanes, load(sums, v * tile.lanes, tile.lanes) + product, tile.lanes)
        store_tile(self.buffers, sums, 0, tile, target, geometry.columns, self.activation)


def most_vectors(geometry: ConvGeometry) -> int:
    """Return how many vectors of sums a tile has at most where nothing else is asked for."""
    return 4 if geometry.kernel[0] * geometry.kernel[1] <= _FEW_TAPS else 8


def strip_rows(geometry: ConvGeometry, floats: int) -> int:
    """Return how many rows of the output to compute at a time: all, unless a channel's planes have over ``floats``."""
    if geometry.single_tap or geometry.channel_size <= floats:
        return geometry.rows
    per_row = len(geometry.phases) * geometry.pitch
    most = max(floats // per_row - geometry.reach, geometry.reach + 1)
    return -(-geometry.rows // -(-geometry.rows // most))
