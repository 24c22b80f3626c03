"""Projects numbers on the positions of an axis onto the leaves that the axis is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.axis import Axis, Kind, known_size, resolve


def project(
    axis: Axis, values: NDArray[Any], reduce: Callable[..., Any], *, absent: Any = 0
) -> Iterator[tuple[Axis, NDArray[Any]]]:
    """Yield (leaf, values of its elements), once for each place where a leaf stands in ``axis``.

    Args:
        axis: an axis of known size.
        values: one value for each of its positions.
        reduce: ``np.sum``, ``np.any``, ...: combines the positions of a product that share one element of a factor.
        absent: value of elements of a gathered axis's base that the axis does not take.
    """
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        yield axis, values
        return
    sizes = [known_size(part) for part in axis.parts]
    if axis.kind is Kind.SUM:
        start = 0
        for part, size in zip(axis.parts, sizes, strict=True):
            yield from project(part, values[start : start + size], reduce, absent=absent)
            start += size
        return
    if axis.kind is Kind.GATHERED:
        yield from project(axis.parts[0], _scattered(axis, values, reduce, absent), reduce, absent=absent)
        return
    grid = values.reshape(sizes)
    for i, part in enumerate(axis.parts):
        others = tuple(j for j in range(grid.ndim) if j != i)
        yield from project(part, reduce(grid, axis=others), reduce, absent=absent)


def _scattered(axis: Axis, values: NDArray[Any], reduce: Callable[..., Any], absent: Any) -> NDArray[Any]:
    """Return one value for each element of the base of a gathered axis."""
    assert axis.positions is not None
    result = np.full(known_size(axis.parts[0]), absent, dtype=values.dtype)
    order = np.argsort(axis.positions, kind="stable")
    taken, starts = np.unique(axis.positions[order], return_index=True)
    if len(taken) == len(values):
        result[axis.positions] = values
        return result
    for position, group in zip(taken, np.split(values[order], starts[1:]), strict=True):
        result[position] = reduce(group, axis=0)
    return result
