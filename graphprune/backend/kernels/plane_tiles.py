"""Planes in the form that sparse 1x1 convolutions compute in: tiles of [channels, positions].

A tensor [batch, channels, height, width] in this form is [batch * tiles, channels, pitch]: each tile holds all channels
of some consecutive positions of a sample, vector after vector of a ``Tile``. Where the positions do not divide, the
last tile of a sample, and the last vector of every tile, is moved back to end at the last position: some positions
are there twice. Every kernel computes them twice, with equal results, so none has to care.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import tile_starts
from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.contract import Kernel, Tiled
from graphprune.backend.kernels.emit import Arguments, arguments, building, fetch_share, load, prefetch, store
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile


def tiled_planes_shape(tile: Tile, batch: int, channels: int) -> tuple[int, int, int]:
    """Return the shape in tiles of ``channels`` planes of each of ``batch`` samples."""
    return (batch * tile.count, channels, tile.pitch)


def from_plane_tiles(shape: Sequence[int], tile: Tile) -> Kernel:
    """Return the kernel that brings a tensor [batch, channels, height, width] back from tiles."""
    batch, channels = shape[:2]
    # TVM takes any function of one tensor for a possible reshape and looks inside; so this one has two.
    constants = (tile_starts(tile.grid_columns, tile.columns).astype(np.int32),)
    with building("from_plane_tiles") as emitter:
        buffers = arguments(tiled_planes_shape(tile, batch, channels), shape, constants, residual=False)
        planes, tiles = _Rows(tile, channels, tiled=False), _Rows(tile, channels, tiled=True)
        with T.parallel(batch * tile.count) as task:
            sample, index = T.Bind(task // tile.count), T.Bind(task % tile.count)
            target, source = (rows.start(sample, index, 0) for rows in (planes, tiles))
            with T.serial(channels) as channel:
                for to, of in zip(planes.columns, tiles.columns, strict=True):
                    vector = load(buffers.x, source + (channel * tiles.stride + of), tile.lanes)
                    store(buffers.out, target + (channel * planes.stride + to), vector, tile.lanes)
    return Kernel("from_plane_tiles", emitter.function, constants, tuple(shape), note=f"{tile.count} tiles")


def ask_for_block(x, start, floats: int, row, rows: int) -> None:
    """Emit row number ``row``'s share, of ``rows``, of the requests for the ``floats`` from ``start`` on, if any."""
    lines = -(-floats // LINE_FLOATS)
    with T.If(row < -(-lines // -(-lines // rows))), T.Then():
        fetch_share(x, start, floats, row, rows)


class _Rows:
    """Where the rows of a tile, one for each channel, lie in planes or in tiles.

    Attributes:
        stride: from one row to the next.
        columns: where each vector lies in its row.
    """

    def __init__(self, tile: Tile, channels: int, *, tiled: bool) -> None:
        self._tile, self._channels, self._tiled = tile, channels, tiled
        self.stride = tile.pitch if tiled else tile.grid_columns
        self.columns = tuple(range(0, tile.pitch, tile.lanes)) if tiled else tile.starts

    def start(self, sample, index, first_row):
        """Emit and return where row ``first_row`` of tile ``index`` of a sample starts."""
        if self._tiled:
            return T.Bind(((sample * self._tile.count + index) * self._channels + first_row) * self.stride)
        _, column = self._tile.origin(index)
        return T.Bind((sample * self._channels + first_row) * self.stride + column)

    def lines(self) -> list[int]:
        """Return a float of each cache line of a row, counted from its start."""
        lines = list(range(0, self.columns[-1] + self._tile.lanes, LINE_FLOATS))
        return lines if self._tiled else [*lines, self._tile.columns - 1]


class TiledResults:
    """Emits what becomes of sums where the output, the residual or both are in tiles.

    Args:
        buffers: of the kernel.
        tile: one row of positions, at least a vector.
        channels: of the output.
        tiled: which operands are in tiles.
        activation: of the epilogue.
        ahead: rows from the one that is computed to the ones whose output, and whose residual, is asked for; None for
            small tensors, which are near.
    """

    def __init__(
        self,
        buffers: Arguments,
        tile: Tile,
        channels: int,
        tiled: Tiled,
        activation: str,
        ahead: tuple[int, int] | None,
    ) -> None:
        self._buffers, self._tile, self._activation, self._ahead = buffers, tile, activation, ahead
        self._out = _Rows(tile, channels, tiled=tiled.out)
        self._residual = _Rows(tile, channels, tiled=tiled.residual)

    def begin(self, sample, index, first_row) -> tuple[Any, Any]:
        """Emit and return where row ``first_row`` of a tile lies in the output and in the residual."""
        out = self._out.start(sample, index, first_row)
        return out, None if self._buffers.residual is None else self._residual.start(sample, index, first_row)

    def finish(self, held, starts: tuple[Any, Any], row) -> None:
        """Emit the epilogue and the store of a tile's row of sums, ``row`` rows after ``starts``."""
        out, lanes, residual = starts[0] + row * self._out.stride, self._tile.lanes, self._buffers.residual
        added = None if residual is None else starts[1] + row * self._residual.stride
        self._ask(out, added)
        for v, column in enumerate(self._out.columns):
            value = load(held, v * lanes, lanes)
            if added is not None:
                value = value + load(residual, added + self._residual.columns[v], lanes)
            store(self._buffers.out, out + column, activate(self._activation, value, lanes), lanes)

    def _ask(self, out, added) -> None:
        if self._ahead is None:
            return
        for line in self._out.lines():
            prefetch(self._buffers.out, out + (self._ahead[0] * self._out.stride + line), write=True)
        if added is not None:
            for line in self._residual.lines():
                prefetch(self._buffers.residual, added + (self._ahead[1] * self._residual.stride + line), near=True)
