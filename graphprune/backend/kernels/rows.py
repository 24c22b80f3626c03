"""Steps of kernels that go along rows: loops of vectors, sums and maxima over a row, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.activations import _exp as exponential
from graphprune.backend.kernels.emit import load, registers, splat, store, widths
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_NEVER = -1e30  # a score without weight: finite, so that a row in which nothing may be chosen gives no NaN


@dataclass(frozen=True)
class Mask:
    """What is added to scores before a softmax, broadcast against them.

    Attributes:
        buffer: the values, flat.
        strides: for each axis of the scores, the distance of neighbours; 0 where the mask broadcasts.
        shape: of the scores.
    """

    buffer: tirx.Buffer
    strides: tuple[int, ...]
    shape: tuple[int, ...]

    def row(self, row: Any) -> Any:
        """Return where the values of a row of scores begin, the rows of all matrices counted."""
        offset: Any = 0
        sizes = self.shape[:-1]
        for axis in reversed(range(len(sizes))):
            if self.strides[axis]:
                offset = offset + (row // math.prod(sizes[axis + 1 :])) % sizes[axis] * self.strides[axis]
        return T.Bind(offset) if not isinstance(offset, int) else offset

    def values(self, start: Any, column: Any, width: int) -> Any:
        """Return the values for ``width`` columns of the row that begins at ``start``."""
        if self.strides[-1] == 0:
            return splat(self.buffer[start], width)
        return load(self.buffer, start + column, width)


def weigh_row(
    x: tirx.Buffer,
    x_start: Any,
    out: tirx.Buffer,
    out_start: Any,
    columns: int,
    target: CompileTarget,
    *,
    row: Any,
    position: Any = None,
    scale: Any = None,
    mask: Mask | None = None,
) -> Any:
    """Emit ``out = exp(y - max(y))`` for a row, y being ``x * scale + mask``, and return one over its sum.

    ``row`` counts the rows of all matrices, for the mask; with ``position``, columns beyond it are hidden (causal).
    A row that the mask closes altogether (-inf) returns 0; without a mask, such a row is NaN. ``x`` may be ``out``.
    """
    lanes = row_lanes(target, columns)
    accumulator = registers(1, lanes)
    mask_start = None if mask is None else mask.row(row)
    in_place = x is out and scale is None and mask is None and position is None

    def score(column: Any, width: int) -> None:
        value = load(x, x_start + column, width)
        if scale is not None:
            value = value * splat(scale, width)
        if mask is not None:
            value = value + mask.values(mask_start, column, width)
        if position is not None:
            value = _hide_later(value, column, position, width)
        if not in_place:
            store(out, out_start + column, value, width)
        accumulate(accumulator, tirx.max, load(out, out_start + column, width), width)

    def weigh(column: Any, width: int) -> None:
        shifted = load(out, out_start + column, width) - splat(base, width)
        store(out, out_start + column, exponential(shifted, width), width)
        accumulate(accumulator, plus, load(out, out_start + column, width), width)

    store(accumulator, 0, splat(-math.inf, lanes), lanes)
    along(columns, lanes, score)
    highest = base = fold(accumulator, tirx.max, lanes)
    is_open = None if mask is None else T.Bind(highest > T.float32(-math.inf))
    if is_open is not None:
        base = T.Bind(tirx.Select(is_open, highest, T.float32(0.0)))
    store(accumulator, 0, splat(0.0, lanes), lanes)
    along(columns, lanes, weigh)
    factor = T.Bind(T.float32(1.0) / fold(accumulator, plus, lanes))
    return factor if is_open is None else T.Bind(tirx.Select(is_open, factor, T.float32(0.0)))


def row_lanes(target: CompileTarget, columns: int) -> int:
    """Return the widest vector that fits into a row."""
    lanes = target.lanes
    while lanes > columns:
        lanes //= 2
    return max(1, lanes)


def along(columns: int, lanes: int, body: Callable[[Any, int], None]) -> None:
    """Emit ``body(column, width)`` over a row: a loop of whole vectors, then narrower vectors for the rest."""
    whole = columns // lanes
    if whole:
        with T.serial(whole) as i:
            body(i * lanes, lanes)
    for start, width in widths(columns - whole * lanes, lanes):
        body(whole * lanes + start, width)


def plus(a: Any, b: Any) -> Any:
    """Return the sum, for ``accumulate`` and ``fold``."""
    return a + b


def accumulate(accumulator: tirx.Buffer, combine: Callable[[Any, Any], Any], value: Any, width: int) -> None:
    """Emit the combination of ``value`` with the first lanes of the accumulator."""
    store(accumulator, 0, combine(load(accumulator, 0, width), value), width)


def fold(accumulator: tirx.Buffer, combine: Callable[[Any, Any], Any], lanes: int) -> Any:
    """Return the lanes of the accumulator combined to one scalar, halves first."""
    while lanes > 1:
        lanes //= 2
        store(accumulator, 0, combine(load(accumulator, 0, lanes), load(accumulator, lanes, lanes)), lanes)
    return T.Bind(accumulator[0])


def broadcast_strides(mask_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the mask's stride for each axis of ``shape``, 0 where it broadcasts.

    Raises:
        BackendError: if it does not broadcast.
    """
    padded = (1,) * (len(shape) - len(mask_shape)) + mask_shape
    if len(padded) != len(shape) or any(m not in (1, s) for m, s in zip(padded, shape, strict=True)):
        raise BackendError(f"a mask of shape {mask_shape} does not broadcast against {shape}")
    strides, step = [], 1
    for m in reversed(padded):
        strides.append(0 if m == 1 else step)
        step *= m
    return tuple(reversed(strides))


def _hide_later(value: Any, column: Any, position: Any, width: int) -> Any:
    if width == 1:
        return tirx.Select(column <= position, value, T.float32(_NEVER))
    columns = tirx.Ramp(T.cast(column, "int32") if not isinstance(column, int) else T.int32(column), 1, width)
    return tirx.Select(columns <= tirx.Broadcast(position, width), value, splat(_NEVER, width))
