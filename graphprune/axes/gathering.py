"""Gathered axes in their simplest form: elements at constant positions of another axis.

A permutation of a product's factors is a product again, a piece of a sum is a piece of its terms, and a gathered
gathered axis is one gathered axis. Functions here only look; :class:`graphprune.axes.AxisSolver` changes types.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.axis import Axis, IntArray, Kind, direct_sum, factors, known_size, pin_of, product, resolve, terms

MAX_VISITS = 2
"""A selection from a sum that visits its terms more often than this, on average, is kept whole."""

MAX_FACTORS = 4
"""Products of more factors than this are not searched for a rearrangement of their factors."""


def gathered(base: Axis, positions: IntArray) -> Axis:
    """Return the axis of the elements ``positions`` of ``base``, an axis of known size, in its simplest form."""
    base = resolve(base)
    pin = pin_of(base)
    if pin is not None:
        return Axis(len(positions), pin=pin)
    if is_identity(positions, known_size(base)):
        return base
    if base.kind is Kind.GATHERED:
        assert base.positions is not None
        return gathered(base.parts[0], base.positions[positions])
    simpler = None
    if base.kind is Kind.SUM:
        simpler = _from_sum(base, positions)
    elif base.kind is Kind.PRODUCT:
        simpler = _from_product(base, positions)
    return _form(base, positions) if simpler is None else simpler


def _form(base: Axis, positions: IntArray) -> Axis:
    return Axis(len(positions), Kind.GATHERED, (base,), positions=positions)


def is_identity(positions: IntArray, size: int) -> bool:
    """Say whether ``positions`` are all elements of an axis of ``size``, in order."""
    return len(positions) == size and bool((positions == np.arange(size)).all())


def inverse(positions: IntArray, size: int) -> IntArray | None:
    """Return the inverse of a permutation of ``size`` elements, or None if ``positions`` is none."""
    if len(positions) != size:
        return None
    result = np.full(size, -1, np.int64)
    result[positions] = np.arange(size)
    return None if (result < 0).any() else result


def touched(positions: IntArray, size: int) -> NDArray[np.bool_]:
    """Return which elements of an axis of ``size`` are among ``positions``."""
    result = np.zeros(size, bool)
    result[positions] = True
    return result


def runs(positions: IntArray, most: int) -> list[tuple[int, int]] | None:
    """Return the maximal runs of consecutive positions as (first position, length); None if more than ``most``."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    if len(breaks) >= most:
        return None
    starts = np.concatenate([[0], breaks])
    lengths = np.diff(starts, append=len(positions))
    return list(zip(positions[starts].tolist(), lengths.tolist(), strict=True))


def _pieces_of_sum(base: Axis, positions: IntArray) -> list[tuple[Axis, IntArray]] | None:
    """Return (term, positions in it) for each stretch of ``positions`` within one term; None if there are too many."""
    parts = terms(base)
    ends = np.cumsum([known_size(part) for part in parts])
    owner = np.searchsorted(ends, positions, side="right")
    breaks = np.flatnonzero(np.diff(owner)) + 1
    if len(breaks) >= MAX_VISITS * touched(owner, len(parts)).sum():
        return None
    starts = ends - [known_size(part) for part in parts]
    stretches = np.split(np.arange(len(positions)), breaks)
    owners = [int(owner[stretch[0]]) for stretch in stretches if len(stretch)]
    return [(parts[i], positions[s] - starts[i]) for i, s in zip(owners, stretches, strict=False)]


def _from_sum(base: Axis, positions: IntArray) -> Axis | None:
    pieces = _pieces_of_sum(base, positions)
    if pieces is not None:
        return direct_sum(_joined([gathered(term, inner) for term, inner in pieces]))
    return _without_untouched_terms(base, positions)


def _joined(pieces: list[Axis]) -> list[Axis]:
    """Join neighbours that are gathered from one axis."""
    result: list[Axis] = []
    for piece in (term for whole in pieces for term in terms(whole)):
        last = result[-1] if result else None
        if last is not None and last.kind is piece.kind is Kind.GATHERED:
            base = resolve(last.parts[0])
            if base is resolve(piece.parts[0]):
                assert last.positions is not None and piece.positions is not None
                result[-1] = gathered(base, np.concatenate([last.positions, piece.positions]))
                continue
        result.append(piece)
    return result


def _without_untouched_terms(base: Axis, positions: IntArray) -> Axis | None:
    parts = terms(base)
    sizes = np.array([known_size(part) for part in parts])
    ends = np.cumsum(sizes)
    owner = np.searchsorted(ends, positions, side="right")
    in_use = touched(owner, len(parts))
    if in_use.all():
        return None
    dropped_before = np.cumsum(np.where(in_use, 0, sizes))
    kept = direct_sum([part for part, keep in zip(parts, in_use, strict=True) if keep])
    return gathered(kept, positions - dropped_before[owner])


def _from_product(base: Axis, positions: IntArray) -> Axis | None:
    parts = factors(base)
    grid = np.unravel_index(positions, [known_size(part) for part in parts])
    free = [i for i, part in enumerate(parts) if pin_of(part) is None]
    if len(free) == 1:
        return gathered(parts[free[0]], grid[free[0]].astype(np.int64))
    found = _grid_of_factors(parts, positions)
    return None if found is None else product([gathered(part, inner) for part, inner in found])


def _grid_of_factors(parts: Sequence[Axis], positions: IntArray) -> list[tuple[Axis, IntArray]] | None:
    """Return (factor, positions in it), outermost first, if a product of selections from factors is what is taken.

    Taking rows, columns, and transposing factors are of this form.
    """
    grid = np.unravel_index(positions, [known_size(part) for part in parts])
    count = len(parts)
    orders: Iterator[tuple[int, ...]] = (
        itertools.permutations(range(count)) if count <= MAX_FACTORS else iter([tuple(range(count))])
    )
    for order in orders:
        lists = _cartesian([grid[i].astype(np.int64) for i in order])
        if lists is not None:
            return [(parts[i], inner) for i, inner in zip(order, lists, strict=True)]
    return None


def _cartesian(columns: list[IntArray]) -> list[IntArray] | None:
    """Return lists whose Cartesian product, first one slowest, has these columns; None if there are none."""
    lists = []
    while len(columns) > 1:
        column, *inner = columns
        changes = np.flatnonzero(column != column[0])
        length = int(changes[0]) if len(changes) else len(column)
        if len(column) % length or not (column == np.repeat(column[::length], length)).all():
            return None
        periods = [other[:length] for other in inner]
        count = len(column) // length
        if any((other != np.tile(period, count)).any() for other, period in zip(inner, periods, strict=True)):
            return None
        lists.append(column[::length])
        columns = periods
    return [*lists, *columns]


def simplest(axis: Axis) -> Axis:
    """Resolve ``axis`` and, if it is gathered from an axis that was refined meanwhile, simplify it for good."""
    axis = resolve(axis)
    if axis.kind is not Kind.GATHERED:
        return axis
    assert axis.positions is not None
    base = resolve(axis.parts[0])
    simpler = gathered(base, axis.positions)
    if simpler.kind is Kind.GATHERED and resolve(simpler.parts[0]) is base:
        return axis
    axis.link = simpler
    return resolve(simpler)
