"""Emits the copy of a convolution's input into zero-padded, phase-split planes."""

from __future__ import annotations

from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, splat, store, widths, workspace
from graphprune.backend.kernels.geometry import ConvGeometry


def planes_of(x, geometry: ConvGeometry):
    """Return the flat planes of ``x`` (flat NCHW): itself, or a workspace that an emitted parallel loop fills."""
    if geometry.direct:
        return x
    planes = workspace(geometry.workspace_size)
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
        _copy(x, source, planes, row, (first_column, last_column), geometry)
        _zero(planes, row + last_column, pitch - last_column)


def _copy(x, source, planes, row, columns: tuple[int, int], geometry: ConvGeometry) -> None:
    """Emit ``planes[row + j] = x[source + j * stride]`` for j in ``columns``."""
    first, last = columns
    stride, lanes = geometry.stride[1], geometry.lanes
    if stride == 1 and last - first >= lanes:
        whole = (last - first) // lanes
        with T.serial(whole) as j:
            store(planes, row + first + j * lanes, load(x, source + first + j * lanes, lanes), lanes)
        if (last - first) % lanes:
            # The last vector overlaps the one before it.
            store(planes, row + last - lanes, load(x, source + last - lanes, lanes), lanes)
        return
    with T.serial(last - first) as j:
        store(planes, row + first + j, load(x, source + (first + j) * stride, 1), 1)


def _zero(planes, start, count: int) -> None:
    if count <= 32:
        for offset, width in widths(count, 8):
            store(planes, start + offset, splat(0.0, width), width)
        return
    with T.serial(count) as i:
        store(planes, start + i, T.float32(0), 1)
