"""The type of one tensor axis: a leaf, a row-major product, a direct sum, or elements gathered from another axis.

Axes are nodes of a union-find forest: a leaf that is found equal to something else links to it, and
:func:`resolve` follows the links. Functions here only look; :class:`graphprune.axes.AxisSolver` changes types.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.size import Size, multiply

IntArray = NDArray[np.int64]

_identities = itertools.count()


class Kind(Enum):
    """The four forms of an axis."""

    LEAF = "leaf"
    PRODUCT = "product"
    SUM = "sum"
    GATHERED = "gathered"


@dataclass(frozen=True)
class Pin:
    """Why a leaf cannot lose elements: a reason in words, and the graph node that is to blame (None: nobody)."""

    reason: str
    node: str | None = None


UNIT = Pin("axis of size 1")
EMPTY = Pin("axis of size 0")


class Axis:
    """One axis type. ``parts`` are the factors of a product or the terms of a sum; leaves have none.

    A gathered axis has one part, its base, and ``positions``: its i-th element is element ``positions[i]`` of the base.
    """

    __slots__ = ("identity", "kind", "link", "parts", "pin", "positions", "size")

    def __init__(
        self,
        size: Size,
        kind: Kind = Kind.LEAF,
        parts: Sequence[Axis] = (),
        pin: Pin | None = None,
        positions: IntArray | None = None,
    ) -> None:
        self.identity = next(_identities)
        self.size = size
        self.kind = kind
        self.parts = tuple(parts)
        self.pin = pin
        self.positions = positions
        self.link: Axis | None = None

    def __repr__(self) -> str:
        return describe(self)


def resolve(axis: Axis) -> Axis:
    """Return the axis that ``axis`` stands for, shortening the chain of links on the way."""
    root = axis.link
    if root is None:
        return axis
    while root.link is not None:
        root = root.link
    while axis.link is not None:
        axis.link, axis = root, axis.link
    return root


def size_of(axis: Axis) -> Size:
    """Return the number of elements of ``axis``."""
    return resolve(axis).size


def known_size(axis: Axis) -> int:
    """Return the number of elements of an axis whose size is not dynamic."""
    size = size_of(axis)
    assert isinstance(size, int), f"{describe(axis)} has a dynamic size"
    return size


def is_unit(axis: Axis) -> bool:
    """Say whether ``axis`` is an ordinary axis of size 1, which broadcasts and vanishes from products.

    A leaf of size 1 that was split off a larger axis is a real unit and is not meant: it is not pinned.
    """
    axis = resolve(axis)
    return isinstance(axis.size, int) and axis.size == 1 and pin_of(axis) is not None


def factors(axis: Axis) -> list[Axis]:
    """Return the factors of ``axis`` as a product, flattened, outermost first, without units."""
    axis = resolve(axis)
    if axis.kind is Kind.PRODUCT:
        return [factor for part in axis.parts for factor in factors(part)]
    return [] if is_unit(axis) else [axis]


def terms(axis: Axis) -> list[Axis]:
    """Return the terms of ``axis`` as a direct sum, flattened, first to last."""
    axis = resolve(axis)
    if axis.kind is Kind.SUM:
        return [term for part in axis.parts for term in terms(part)]
    return [axis]


def product(axes: Iterable[Axis]) -> Axis:
    """Return the row-major product of ``axes``, outermost first; units are left out."""
    flat = [factor for axis in axes for factor in factors(axis)]
    if not flat:
        return Axis(1, pin=UNIT)
    return flat[0] if len(flat) == 1 else Axis(multiply(f.size for f in flat), Kind.PRODUCT, flat)


def direct_sum(axes: Iterable[Axis]) -> Axis:
    """Return the concatenation of ``axes``; empty terms are left out."""
    flat = [term for axis in axes for term in terms(axis) if not _is_empty(term)]
    if not flat:
        return Axis(0, pin=EMPTY)
    if len(flat) == 1:
        return flat[0]
    total: Size = 0
    for term in flat:
        total = total + term.size
    return Axis(total, Kind.SUM, flat)


def _is_empty(axis: Axis) -> bool:
    return isinstance(axis.size, int) and axis.size == 0


def pin_of(axis: Axis) -> Pin | None:
    """Return a pin if *every* leaf of ``axis`` is pinned, else None.

    A composite axis that is pinned throughout collapses to one pinned leaf: its structure no longer matters.
    """
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        return axis.pin
    pin = None
    for part in axis.parts:
        pin = pin_of(part)
        if pin is None:
            return None
    axis.kind, axis.parts, axis.pin, axis.positions = Kind.LEAF, (), pin, None
    return pin


def leaves(axis: Axis) -> list[Axis]:
    """Return the distinct leaves of ``axis`` in order of appearance."""
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:  # most are
        return [axis]
    found: dict[int, Axis] = {}
    stack = [axis]
    while stack:
        current = resolve(stack.pop())
        if current.kind is Kind.LEAF:
            found.setdefault(current.identity, current)
        else:
            stack.extend(reversed(current.parts))
    return list(found.values())


def describe(axis: Axis, depth: int = 4, width: int = 8) -> str:
    """Return ``axis`` as text: ``64#7`` a free leaf, ``3!`` a pinned one, ``(3! * 12#4)``, ``(64#1 + 32#2)``.

    ``64#1[8]`` is eight elements gathered from a leaf.
    """
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        return f"{axis.size}!" if axis.pin else f"{axis.size}#{axis.identity}"
    if depth == 0:
        return "(...)"
    parts = [describe(part, depth - 1, width) for part in axis.parts]
    if axis.kind is Kind.GATHERED:
        return f"{parts[0]}[{axis.size}]"
    if len(parts) > width:
        parts = [*parts[: width // 2], "...", *parts[-2:]]
    return "(" + (" * " if axis.kind is Kind.PRODUCT else " + ").join(parts) + ")"
