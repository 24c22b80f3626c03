"""Where a leaf stands in an axis: at which positions, and with which of its elements."""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.axis import Axis, Kind, factors, known_size, resolve
from graphprune.axes.size import Size, multiply


class Presence(Enum):
    """How much a leaf has to say about the positions of an axis."""

    ABSENT = "at no position"
    PARTIAL = "at some positions only"
    EVERYWHERE = "once at every position"
    REPEATED = "more than once at a position"


def presence(axis: Axis, leaf: int) -> Presence:
    """Say at which positions of ``axis`` the leaf with identity ``leaf`` has a coordinate."""
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        return Presence.EVERYWHERE if axis.identity == leaf else Presence.ABSENT
    found = [presence(part, leaf) for part in axis.parts]
    if axis.kind is Kind.GATHERED:
        return found[0]
    if axis.kind is Kind.SUM:
        if len(set(found)) == 1:
            return found[0]
        return Presence.REPEATED if Presence.REPEATED in found else Presence.PARTIAL
    present = [part for part in found if part is not Presence.ABSENT]
    if len(present) > 1:
        return Presence.REPEATED
    return present[0] if present else Presence.ABSENT


def coordinates(axis: Axis, leaf: int, size: int) -> NDArray[np.int64]:
    """Return the leaf's element at each of the ``size`` run-time positions of ``axis``, -1 where it has none.

    A leaf that stands several times at one position is given there by its innermost place.
    """
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        return np.arange(size) if axis.identity == leaf else np.full(size, -1)
    if axis.kind is Kind.SUM:
        return np.concatenate([coordinates(part, leaf, known_size(part)) for part in axis.parts])
    if axis.kind is Kind.GATHERED:
        return coordinates(axis.parts[0], leaf, known_size(axis.parts[0]))[axis.positions]
    result = np.full(1, -1)
    for factor, length in zip(factors(axis), run_time_lengths(axis, size), strict=True):
        inner = coordinates(factor, leaf, length)
        result = np.where(inner >= 0, inner, np.repeat(result, length).reshape(-1, length)).ravel()
    return result


def run_time_lengths(axis: Axis, size: int) -> list[int]:
    """Return the lengths of the factors of a product that has ``size`` elements at run time.

    At most one factor may have a dynamic size.
    """
    sizes: list[Size] = [factor.size for factor in factors(axis)]
    known = multiply(length for length in sizes if isinstance(length, int))
    assert isinstance(known, int)
    return [length if isinstance(length, int) else size // known for length in sizes]
