"""Refines axis types: pin, split, refine and unify. The only code that changes an axis.

The laws (tests/axes/test_solver_laws.py states them as properties):

- a pinned axis absorbs what it meets: unifying with it pins the other side and goes no further;
- ``split`` is total and constrains nothing: it only names the two halves;
- unifying a leaf with anything makes it that thing, unless the leaf occurs inside it;
- ``gather`` is total and constrains nothing either; a leaf that equals a rearrangement of itself is one element for
  each class of elements that trade places;
- two sums, or two products, meet in their common refinement; what cannot be refined is pinned, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.axes.axis import (
    EMPTY,
    UNIT,
    Axis,
    IntArray,
    Kind,
    Pin,
    direct_sum,
    factors,
    is_unit,
    known_size,
    leaves,
    pin_of,
    product,
    resolve,
    terms,
)
from graphprune.axes.gathered_unification import gather, isolate, tie, unify_gathered
from graphprune.axes.gathering import gathered, simplest
from graphprune.axes.size import Size, exact_quotient

MAX_TERMS = 4096
"""A sum of more terms than this is pinned rather than unified: no real model comes near."""


@dataclass(frozen=True)
class Link:
    """Two leaves were found to be related (equal, or one part of the other) at a node of the graph."""

    first: int
    second: int
    node: str | None


class AxisSolver:
    """Holds the state of one inference: which node is being typed, and the trail of what was linked and pinned.

    Attributes:
        node: name of the graph node whose rule is running; it is blamed for pins and links.
        links: every relation found between leaves, in order, for explanations.
        pins: identity of a leaf -> the pin it received itself, not from a leaf it was unified with.
    """

    def __init__(self) -> None:
        self.node: str | None = None
        self.links: list[Link] = []
        self.pins: dict[int, Pin] = {}
        self._has_gathered = False

    # ---------------------------------------------------------------------------------------------- making axes

    def leaf(self, size: Size) -> Axis:
        """Return a fresh axis of ``size``; units and bare symbols (dynamic dimensions) come pinned."""
        if isinstance(size, int):
            return Axis(size, pin=UNIT if size == 1 else EMPTY if size == 0 else None)
        return self.pinned(size, "dynamic dimension") if size.is_Symbol else Axis(size)

    def pinned(self, size: Size, reason: str) -> Axis:
        """Return a fresh axis of ``size`` that cannot change."""
        axis = Axis(size, pin=Pin(reason, self.node))
        self.pins[axis.identity] = Pin(reason, self.node)
        return axis

    # ---------------------------------------------------------------------------------------------- pin

    def pin(self, axis: Axis, reason: str) -> None:
        """Forbid removals from every leaf of ``axis``."""
        self._pin_with(axis, Pin(reason, self.node))

    def _pin_with(self, axis: Axis, pin: Pin, *, absorbed: bool = False) -> None:
        if self._has_gathered:
            isolate(self, axis)
        for leaf in leaves(axis):
            if leaf.pin is None:
                leaf.pin = pin
                if not absorbed:
                    self.pins.setdefault(leaf.identity, pin)
        pin_of(axis)

    # ---------------------------------------------------------------------------------------------- split

    def split(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        """Return the axes of the first ``at`` elements of ``axis`` and of the rest."""
        left, right = self._halves(simplest(axis), at)
        if self._has_gathered:
            isolate(self, left)
            isolate(self, right)
        return left, right

    def _halves(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        pin = pin_of(axis)
        if pin is not None:
            return Axis(at, pin=pin), Axis(axis.size - at, pin=pin)
        if at == 0:
            return Axis(0, pin=EMPTY), axis
        if at == axis.size:
            return axis, Axis(0, pin=EMPTY)
        if axis.kind is Kind.LEAF:
            return self._split_leaf(axis, at)
        if axis.kind is Kind.SUM:
            return self._split_sum(axis, at)
        if axis.kind is Kind.GATHERED:
            assert axis.positions is not None
            return gathered(axis.parts[0], axis.positions[:at]), gathered(axis.parts[0], axis.positions[at:])
        return self._split_product(axis, at)

    def _split_leaf(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        left, right = Axis(at), Axis(axis.size - at)
        self.bind(axis, Axis(axis.size, Kind.SUM, (left, right)))
        return left, right

    def _split_sum(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        parts = terms(axis)
        for i, term in enumerate(parts):
            if at < term.size:
                left, right = self.split(term, at)
                return direct_sum([*parts[:i], left]), direct_sum([right, *parts[i + 1 :]])
            at -= known_size(term)
        return axis, Axis(0, pin=EMPTY)

    def _split_product(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        """Split ``head * rest`` by distributivity: whole rows of the head first, then inside the row that is cut."""
        head, *rest = factors(axis)
        row = product(rest)
        whole_rows, remainder = divmod(at, known_size(row))
        if remainder == 0:
            left, right = self.split(head, whole_rows)
            return _times(left, row), _times(right, row)
        before, from_cut = self.split(head, whole_rows)
        cut, after = self.split(from_cut, 1)
        row_left, row_right = self.split(row, remainder)
        return (
            direct_sum([_times(before, row), _times(cut, row_left)]),
            direct_sum([_times(cut, row_right), _times(after, row)]),
        )

    def refine(self, axis: Axis, sizes: Sequence[Size]) -> list[Axis]:
        """View ``axis`` as a product of factors with these sizes and return the factors."""
        parts = [self.leaf(size) for size in sizes]
        self.unify(axis, product(parts))
        return parts

    def gather(self, axis: Axis, positions: IntArray) -> Axis:
        """Return the axis of the elements at constant ``positions`` of ``axis``, which may repeat.

        As :meth:`split` it constrains nothing: it only names what is taken.
        """
        self._has_gathered = True
        return gather(self, axis, positions)

    # ---------------------------------------------------------------------------------------------- unify

    def unify(self, a: Axis, b: Axis) -> None:
        """Make ``a`` and ``b`` one axis, refining both as far as needed; what does not fit is pinned."""
        if resolve(a) is resolve(b):
            return
        for axis in (a, b):
            if simplest(axis).kind is Kind.GATHERED:
                isolate(self, axis)
        a, b = simplest(a), simplest(b)
        if a is b:
            return
        if a.size != b.size:
            self._pin_both(a, b, f"sizes {a.size} and {b.size} cannot be matched")
        elif pin_of(a) or pin_of(b):
            self._absorb(a, b)
        elif b.kind is Kind.LEAF or a.kind is Kind.LEAF:
            leaf, other = (a, b) if a.kind is Kind.LEAF else (b, a)
            self._unify_leaf(leaf, other)
        elif Kind.SUM in (a.kind, b.kind):
            self._unify_sums(terms(a), terms(b))
        elif Kind.GATHERED in (a.kind, b.kind):
            unify_gathered(self, a, b)
        else:
            self._unify_products(factors(a), factors(b))

    def _pin_both(self, a: Axis, b: Axis, reason: str) -> None:
        self.pin(a, reason)
        self.pin(b, reason)

    def _absorb(self, a: Axis, b: Axis) -> None:
        self._link_leaves(a, b)
        pin = pin_of(a) or pin_of(b)
        assert pin is not None
        for axis in (a, b):
            if pin_of(axis) is None:
                self._pin_with(axis, pin, absorbed=True)

    def _unify_leaf(self, leaf: Axis, other: Axis) -> None:
        if all(inner is not leaf for inner in leaves(other)):
            self.bind(leaf, other)
        elif other.kind is Kind.GATHERED and resolve(other.parts[0]) is leaf:
            assert other.positions is not None
            tie(self, leaf, np.arange(known_size(leaf)), other.positions)
        else:
            self._occurs(leaf, other)

    def _occurs(self, leaf: Axis, other: Axis) -> None:
        """The leaf lies inside ``other``: only ``leaf * unit`` can equal ``leaf``; everything else is pinned."""
        reason = "axis would have to contain itself"
        for inner in leaves(other):
            if inner is not leaf:
                self.pin(inner, reason)
        if factors(other) != [leaf]:
            self.pin(leaf, reason)

    def _unify_sums(self, first: list[Axis], second: list[Axis]) -> None:
        if len(first) + len(second) > MAX_TERMS:
            self._pin_both(direct_sum(first), direct_sum(second), f"sum of more than {MAX_TERMS} terms")
            return
        a_stack, b_stack = first[::-1], second[::-1]
        while a_stack and b_stack:
            a, b = a_stack.pop(), b_stack.pop()
            if a.size != b.size and not (isinstance(a.size, int) and isinstance(b.size, int)):
                for axis in (a, b, *a_stack, *b_stack):
                    self.pin(axis, "sums of dynamic sizes that do not line up")
                return
            if a.size > b.size:
                a, rest = self.split(a, known_size(b))
                a_stack.append(rest)
            elif b.size > a.size:
                b, rest = self.split(b, known_size(a))
                b_stack.append(rest)
            self.unify(a, b)

    def _unify_products(self, first: list[Axis], second: list[Axis]) -> None:
        """Match factors from the outside in: from the left until stuck, then from the right; pin what is left."""
        for side in ("left", "right"):
            while first and second and self._match_end(first, second, side):
                pass
        for axis in first + second:
            self.pin(axis, "row-major products that do not line up")

    def _match_end(self, first: list[Axis], second: list[Axis], side: str) -> bool:
        """Take one factor off each list at ``side`` and unify them; False (lists unchanged) if they do not fit."""
        end = 0 if side == "left" else -1
        a, b = _pop_factor(first, end), _pop_factor(second, end)
        if a is None or b is None:
            for stack, axis in ((first, a), (second, b)):
                if axis is not None:
                    _push(stack, end, axis)
            return False
        if a.size == 1 or b.size == 1:
            return self._match_lone_unit(first, second, a, b, end)
        common = _common_factor(a.size, b.size)
        if common is None:
            _push(first, end, a)
            _push(second, end, b)
            return False
        a = self._cut(first, a, common, end)
        b = self._cut(second, b, common, end)
        self.unify(a, b)
        return True

    def _match_lone_unit(self, first: list[Axis], second: list[Axis], a: Axis, b: Axis, end: int) -> bool:
        """A real unit (size 1 after a split) on one side only has no partner: it stays, the other waits."""
        if a.size == b.size:
            self.unify(a, b)
            return True
        unit, other, stack = (a, b, second) if a.size == 1 else (b, a, first)
        self.pin(unit, "single element without a counterpart")
        _push(stack, end, other)
        return True

    def _cut(self, stack: list[Axis], axis: Axis, size: Size, end: int) -> Axis:
        """Return the factor of ``size`` at this end of ``axis``, pushing what remains back on ``stack``."""
        if axis.size == size:
            return axis
        rest_size = exact_quotient(axis.size, size)
        assert rest_size is not None
        if end == 0:
            piece, rest = self.refine(axis, (size, rest_size))
        else:
            rest, piece = self.refine(axis, (rest_size, size))
        _push(stack, end, rest)
        return piece

    # ---------------------------------------------------------------------------------------------- trail

    def bind(self, leaf: Axis, other: Axis) -> None:
        """Make ``other`` what a free leaf, which must not occur in it, stands for."""
        self._link_leaves(leaf, other)
        leaf.link = other

    def _link_leaves(self, a: Axis, b: Axis) -> None:
        for first in leaves(a):
            for second in leaves(b):
                self.links.append(Link(first.identity, second.identity, self.node))


def _times(left: Axis, right: Axis) -> Axis:
    return Axis(0, pin=EMPTY) if resolve(left).size == 0 else product([left, right])


def _common_factor(a: Size, b: Size) -> Size | None:
    """Return the largest factor that both sizes surely share, or None if only 1."""
    if exact_quotient(a, b) is not None:
        return b
    if exact_quotient(b, a) is not None:
        return a
    common = math.gcd(a, b) if isinstance(a, int) and isinstance(b, int) else 1
    return common if common > 1 else None


def _pop_factor(stack: list[Axis], end: int) -> Axis | None:
    """Pop the next factor at ``end``, opening axes that have become products meanwhile; None if nothing is left."""
    while stack:
        axis = simplest(stack.pop(end))
        if axis.kind is Kind.PRODUCT:
            stack[:] = [*axis.parts, *stack] if end == 0 else [*stack, *axis.parts]
        elif not is_unit(axis):
            return axis
    return None


def _push(stack: list[Axis], end: int, axis: Axis) -> None:
    stack.insert(0, axis) if end == 0 else stack.append(axis)
