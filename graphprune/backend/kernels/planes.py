"""Emits the copy of a convolution's input into zero-padded, phase-split planes."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, splat, store, widths, workspace
from graphprune.backend.kernels.geometry import ConvGeometry


def planes_of(x, geometry: ConvGeometry, slack: int = 0):
    """Return the flat planes of ``x`` (flat NCHW): itself, or a workspace that an emitted parallel loop fills.

    The workspace is ``slack`` floats larger than the planes need.
    """
    if geometry.direct:
        return x
    planes = workspace(geometry.workspace_size + slack)
    with T.parallel(geometry.batch * geometry.channels) as channel:
        fill_channel(x, channel, planes, channel * geometry.channel_size, geometry)
    return planes


def fill_channel(x, channel, planes, base, geometry: ConvGeometry) -> None:
    """Emit the copy of one channel (``channel`` counts through samples too) to ``planes`` from ``base`` on."""
    for index, phase in enumerate(geometry.phases):
        _fill_phase(x, channel, planes, base + index * geometry.plane_rows * geometry.pitch, phase, geometry)


def _fill_phase(x, channel, planes, base, phase: tuple[int, int], geometry: ConvGeometry) -> None:
    first_row, last_row = geometry.interior(0, phase[0])
    first_column, last_column = geometry.interior(1, phase[1])
    pitch = geometry.pitch
    _zero(planes, base, first_row * pitch)
    _zero(planes, base + last_row * pitch, (geometry.plane_rows - last_row) * pitch)
    if first_row == last_row:
        return
    with T.serial(last_row - first_row) as i:
        row = T.Bind(base + (first_row + i) * pitch)
        source_row = (first_row + i) * geometry.stride[0] + phase[0] - geometry.padding[0]
        source = T.Bind((channel * geometry.height + source_row) * geometry.width + phase[1] - geometry.padding[1])
        _zero(planes, row, first_column)
        beyond = geometry.width - 1 - ((last_column - 1) * geometry.stride[1] + phase[1] - geometry.padding[1])
        _copy(x, source, planes, row, (first_column, last_column), geometry, beyond)
        _zero(planes, row + last_column, pitch - last_column)


def _copy(x, source, planes, row, columns: tuple[int, int], geometry: ConvGeometry, beyond: int) -> None:
    """Emit ``planes[row + j] = x[source + j * stride]`` for j in ``columns``.

    The input's row goes on for ``beyond`` elements after the last one that is copied.
    """
    first, last = columns
    stride, lanes = geometry.stride[1], geometry.lanes
    if stride == 2 and beyond == 0:
        last -= 1  # the vector that ends with this element would read one more
        store(planes, row + last, load(x, source + last * stride, 1), 1)
    if stride > 2 or last - first < lanes:
        with T.serial(last - first) as j:
            store(planes, row + first + j, load(x, source + (first + j) * stride, 1), 1)
        return

    def vector(start) -> None:
        store(planes, row + start, _strided(x, source + start * stride, stride, lanes), lanes)

    with T.serial((last - first) // lanes) as j:
        vector(first + j * lanes)
    if (last - first) % lanes:
        vector(last - lanes)  # it overlaps the one before it


def _strided(x, index, stride: int, lanes: int):
    """Return ``lanes`` elements of ``x`` from ``index`` on, each one or each second."""
    if stride == 1:
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
