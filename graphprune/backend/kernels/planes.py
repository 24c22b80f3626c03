"""Emits the copy of a convolution's input into zero-padded, phase-split planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, splat, store, widths, workspace
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.sharing import shared_loop

_LEAST_LANES = 4  # narrower vectors do not beat single floats


def planes_of(x, geometry: ConvGeometry, cores: int, slack: int = 0):
    """Return the flat planes of ``x`` (flat NCHW): itself, or a workspace that ``cores`` threads fill.

    The workspace is ``slack`` floats larger than the planes need.
    """
    if geometry.direct:
        return x
    planes = workspace(geometry.workspace_size + slack)
    with shared_loop(geometry.batch * geometry.channels, cores) as channel:
        fill_channel(x, channel, planes, channel * geometry.channel_size, geometry)
    return planes


def fill_channel(x, channel, planes, base, geometry: ConvGeometry) -> None:
    """Emit the copy of one channel (``channel`` counts through samples too) to ``planes`` from ``base`` on."""
    pitch, rows = geometry.pitch, geometry.plane_rows
    for index, (phase, columns) in enumerate(_row_phases(geometry)):
        plane = base + index * len(columns) * rows * pitch
        first, last = geometry.interior(0, phase)
        for i in range(len(columns)):
            _zero(planes, plane + i * rows * pitch, first * pitch)
            _zero(planes, plane + (i * rows + last) * pitch, (rows - last) * pitch)
        if first < last:
            with T.serial(last - first) as i:
                source = (first + i) * geometry.stride[0] + phase - geometry.padding[0]
                _fill_row(x, channel, source, planes, plane + (first + i) * pitch, columns, geometry, geometry)


def fill_strip(x, channel, planes, base, geometry: ConvGeometry, strip: ConvGeometry, first_row) -> None:
    """Emit the copy of what ``strip.out_height`` output rows from ``first_row`` on read of a channel.

    ``strip`` is ``geometry.strip(rows)``, which lays out the copy.
    """

    def fill(row, columns: list[int], source) -> None:
        _fill_row(x, channel, source, planes, base + row, columns, geometry, strip)

    def clear(row, columns: list[int]) -> None:
        clear_row(planes, base + row, columns, strip)

    over_strip(geometry, strip, first_row, fill, clear)


def over_strip(geometry: ConvGeometry, strip: ConvGeometry, first_row, fill: Callable, clear: Callable) -> None:
    """Emit what becomes of each row of a channel's planes that output rows from ``first_row`` on read.

    It is ``fill(row, columns, source)`` where it holds row ``source`` of the input, else ``clear(row, columns)``: its
    planes of horizontal phases ``columns`` follow each other, the first one's row at ``row``.
    """
    for index, (phase, columns) in enumerate(_row_phases(geometry)):
        plane = index * len(columns) * strip.plane_rows * strip.pitch
        with T.serial(strip.plane_rows) as i:
            source = T.Bind((first_row + i) * geometry.stride[0] + (phase - geometry.padding[0]))
            row = T.Bind(plane + i * strip.pitch)
            with T.If(tirx.And(source >= 0, source < geometry.height)):
                with T.Then():
                    fill(row, columns, source)
                with T.Else():
                    clear(row, columns)


def clear_row(planes, row, columns: list[int], strip: ConvGeometry) -> None:
    """Emit zeros for one row of a channel's planes, laid out as ``strip``, of horizontal phases ``columns``."""
    for j in range(len(columns)):
        _zero(planes, row + j * strip.plane_rows * strip.pitch, strip.pitch)


def pad_row(planes, row, columns: list[int], strip: ConvGeometry) -> None:
    """Emit the zeros to the left and right of such a row."""
    for _, start, first, last in _row_parts(row, columns, strip):
        _zero(planes, start, first)
        _zero(planes, start + last, strip.pitch - last)


def _row_phases(geometry: ConvGeometry) -> list[tuple[int, list[int]]]:
    """Return the stride phases as (vertical phase, its horizontal phases), in the order of the planes."""
    vertical = sorted({a for a, _ in geometry.phases})
    return [(a, [b for other, b in geometry.phases if other == a]) for a in vertical]


def _row_parts(row, columns: list[int], strip: ConvGeometry) -> Iterator[tuple[int, Any, int, int]]:
    """Emit and yield each horizontal phase, where its row starts, and which columns of it hold real input."""
    for j, phase in enumerate(columns):
        yield phase, T.Bind(row + j * strip.plane_rows * strip.pitch), *strip.interior(1, phase)


def _fill_row(
    x, channel, source_row, planes, row, columns: list[int], geometry: ConvGeometry, strip: ConvGeometry
) -> None:
    """Emit the copy of one row of the input to its place in the planes of horizontal phases ``columns``."""
    stride, padding = geometry.stride[1], geometry.padding[1]
    source = T.Bind((channel * geometry.height + source_row) * geometry.width - padding)
    for phase, start, first, last in _row_parts(row, columns, strip):
        # From left to right: the zeros on both sides first takes depthwise convolutions up to 4 % longer.
        _zero(planes, start, first)
        if first < last:
            beyond = geometry.width - 1 - ((last - 1) * stride + phase - padding)
            _copy(x, source + phase, planes, start, (first, last), geometry, beyond)
        _zero(planes, start + last, strip.pitch - last)


def _copy(x, source, planes, row, columns: tuple[int, int], geometry: ConvGeometry, beyond: int) -> None:
    """Emit ``planes[row + j] = x[source + j * stride]`` for j in ``columns``.

    The input's row goes on for ``beyond`` elements after the last one that is copied.
    """
    first, last = columns
    stride = geometry.stride[1]
    if stride == 2 and beyond == 0:
        last -= 1  # the vector that ends with this element would read one more
        store(planes, row + last, load(x, source + last * stride, 1), 1)
    lanes = geometry.lanes
    while lanes > last - first and lanes > 1:
        lanes //= 2
    if stride > 2 or lanes < _LEAST_LANES:
        with T.serial(last - first) as j:
            store(planes, row + first + j, load(x, source + (first + j) * stride, 1), 1)
        return

    def vector(start) -> None:
        store(planes, row + start, strided(x, source + start * stride, stride, lanes), lanes)

    whole = (last - first) // lanes
    if whole == 1:
        vector(first)
    else:
        with T.serial(whole) as j:
            vector(first + j * lanes)
    if (last - first) % lanes:
        vector(last - lanes)  # it overlaps the one before it


def strided(x, index, stride: int, lanes: int):
    """Return ``lanes`` elements of ``x`` from ``index`` on, each one or, of several, each second."""
    if stride == 1 or lanes == 1:
        return load(x, index, lanes)
    pair = [load(x, index, lanes), load(x, index + lanes, lanes)]
    return tirx.Shuffle(pair, list(range(0, 2 * lanes, 2)))


def _zero(planes, start, count: int) -> None:
    if count <= 32:
        for offset, width in widths(count, 8):
            store(planes, start + offset, splat(0.0, width), width)
        return
    with T.serial(count) as i:
        store(planes, start + i, T.float32(0), 1)
