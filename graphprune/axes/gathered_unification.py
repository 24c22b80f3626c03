"""How gathered axes are unified, pinned and refined: the part of the solver that knows constant positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from graphprune.axes.axis import EMPTY, Axis, IntArray, Kind, direct_sum, known_size, pin_of, product, resolve, terms
from graphprune.axes.gathering import gathered, inverse, runs, simplest, touched

if TYPE_CHECKING:
    from graphprune.axes.solver import AxisSolver

MAX_SPLITS = 8
"""A selection of at most so many runs of consecutive elements becomes a sum of pieces, as slices do."""

CYCLES = "elements that trade places stay or go together"


def gather(solver: AxisSolver, axis: Axis, positions: IntArray) -> Axis:
    """Return the axis of the elements ``positions`` of ``axis``, in the forms of slices and repetitions if they fit."""
    axis = simplest(axis)
    if not len(positions):
        return Axis(0, pin=EMPTY)
    repeated = _repetition(axis, positions, solver.leaf) if pin_of(axis) is None else None
    if repeated is not None:
        return repeated
    result = gathered(axis, positions)
    if axis.kind is not Kind.PRODUCT or result.kind is Kind.GATHERED:
        stretches = runs(positions, MAX_SPLITS) if pin_of(axis) is None else None
        if stretches and (len(stretches) <= 2 or len(positions) >= MAX_SPLITS * len(stretches)):
            return direct_sum([_window(solver, axis, start, length) for start, length in stretches])
    isolate(solver, result)
    return simplest(result)


def _window(solver: AxisSolver, axis: Axis, start: int, length: int) -> Axis:
    _, tail = solver.split(axis, start)
    return solver.split(tail, length)[0]


def _repetition(axis: Axis, positions: IntArray, factor: Callable[[int], Axis]) -> Axis | None:
    """Return the product of ``axis`` and a new factor if ``positions`` repeats all its elements evenly, else None."""
    size = known_size(axis)
    count, rest = divmod(len(positions), size)
    if rest or count < 2:
        return None
    if (positions == np.repeat(np.arange(size), count)).all():
        return product([axis, factor(count)])
    if (positions == np.tile(np.arange(size), count)).all():
        return product([factor(count), axis])
    return None


def unify_gathered(solver: AxisSolver, a: Axis, b: Axis) -> None:
    """Unify two axes of which at least one is gathered and none is a leaf or a sum."""
    if a.kind is b.kind is Kind.GATHERED and _unify_selections(solver, a, b):
        return
    for axis, other in ((a, b), (b, a)):
        if axis.kind is Kind.GATHERED and _unify_with_base(solver, axis, other):
            return
    reason = "gathered at constant positions in a way that does not line up"
    solver.pin(a, reason)
    solver.pin(b, reason)


def _unify_selections(solver: AxisSolver, a: Axis, b: Axis) -> bool:
    """Unify selections from one base: equal ones are one axis; else elements of the base are tied. False if unable."""
    base = resolve(a.parts[0])
    assert a.positions is not None and b.positions is not None
    if resolve(b.parts[0]) is not base:
        return False
    if (a.positions == b.positions).all():
        return True
    if base.kind is not Kind.LEAF:
        return False
    tie(solver, base, a.positions, b.positions)
    return True


def _unify_with_base(solver: AxisSolver, axis: Axis, other: Axis) -> bool:
    """Unify by looking at the base of ``axis``: through the inverse permutation, or naming what it selects."""
    base = resolve(axis.parts[0])
    assert axis.positions is not None
    if base.kind is Kind.LEAF:
        if touched(axis.positions, known_size(base)).sum() < len(axis.positions):
            return False
        solver.unify(named_selection(solver, base, axis.positions), other)
        return True
    back = inverse(axis.positions, known_size(base))
    if back is None:
        return False
    moved = gathered(other, back)
    if base.kind is not Kind.SUM and moved.kind is Kind.GATHERED:
        return False
    solver.unify(base, moved)
    return True


def named_selection(solver: AxisSolver, leaf: Axis, positions: IntArray) -> Axis:
    """Make the distinct elements ``positions`` of a free leaf a leaf of their own and return what is gathered from it.

    The old leaf becomes a rearrangement of two new ones: the selected elements, and the rest.
    """
    size = known_size(leaf)
    distinct, first = np.unique(positions, return_index=True)
    distinct = distinct[np.argsort(first)]
    rest = np.setdiff1d(np.arange(size), distinct)
    place = np.empty(size, np.int64)
    place[np.concatenate([distinct, rest])] = np.arange(size)
    selected = Axis(len(distinct))
    solver.bind(leaf, gathered(direct_sum([selected, Axis(len(rest), pin=None if len(rest) else EMPTY)]), place))
    return gathered(selected, place[positions])


def isolate(solver: AxisSolver, axis: Axis) -> None:
    """Make every selection within ``axis`` one of all elements of its base, refining bases and pinning if need be.

    Then no axis can lose all its elements while each leaf keeps one, and pins touch nothing but what is selected.
    """
    axis = simplest(axis)
    if axis.kind is not Kind.GATHERED:
        for part in axis.parts:
            isolate(solver, part)
        return
    base = resolve(axis.parts[0])
    assert axis.positions is not None
    selected = touched(axis.positions, known_size(base))
    if selected.all():
        return
    if base.kind is Kind.LEAF:
        named_selection(solver, base, axis.positions)
    elif base.kind is Kind.SUM:
        _isolate_terms(solver, base, np.flatnonzero(selected))
    else:
        solver.pin(base, "some elements of a product are gathered that are no rows or columns of it")
    simplest(axis)


def _isolate_terms(solver: AxisSolver, base: Axis, selected: IntArray) -> None:
    start = 0
    for term in terms(base):
        end = start + known_size(term)
        inner = selected[(selected >= start) & (selected < end)] - start
        if len(inner):
            isolate(solver, gathered(term, inner))
        start = end


def tie(solver: AxisSolver, leaf: Axis, first: IntArray, second: IntArray) -> None:
    """Tie element ``first[i]`` of a free leaf to element ``second[i]``: the leaf repeats one element for each class."""
    classes = _classes(known_size(leaf), first, second)
    count = int(classes.max()) + 1
    if count == known_size(leaf):
        return
    units = Axis(count)

    def together(size: int) -> Axis:
        return solver.pinned(size, CYCLES)

    repeated = _repetition(units, classes, together)
    solver.bind(leaf, gathered(units, classes) if repeated is None else repeated)


def _classes(size: int, first: IntArray, second: IntArray) -> IntArray:
    """Return the number of each element's class, classes counted by their first elements."""
    parent = list(range(size))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        parent[max(root(i), root(j))] = min(root(i), root(j))
    roots = np.array([root(i) for i in range(size)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)
