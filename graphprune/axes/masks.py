"""Evaluates keep-masks and new sizes of any axis from the masks of its leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.axis import Axis, Kind, factors, known_size, resolve
from graphprune.axes.size import Size, multiply

BoolArray = NDArray[np.bool_]


class KeepMasks:
    """Keep-masks on leaves, extended to all axes.

    A product's mask is the outer product of its factors' masks, ravelled; a sum's is the concatenation of its terms'.

    Args:
        by_leaf: identity of a resolved leaf -> boolean array of the leaf's size, True where an element is kept.
    """

    def __init__(self, by_leaf: Mapping[int, BoolArray]) -> None:
        self._by_leaf = {identity: mask for identity, mask in by_leaf.items() if not mask.all()}
        self._masks: dict[int, BoolArray | None] = {}
        self._counts: dict[int, Size] = {}

    def mask(self, axis: Axis) -> BoolArray | None:
        """Return the keep-mask of ``axis``, or None if everything is kept. Dynamic axes: see :meth:`dynamic_mask`."""
        axis = resolve(axis)
        if axis.identity not in self._masks:
            self._masks[axis.identity] = self._evaluate(axis)
        return self._masks[axis.identity]

    def _evaluate(self, axis: Axis) -> BoolArray | None:
        if axis.kind is Kind.LEAF:
            return self._by_leaf.get(axis.identity)
        masks = [self.mask(part) for part in axis.parts]
        if all(mask is None for mask in masks):
            return None
        full = [
            np.ones(known_size(part), bool) if mask is None else mask
            for mask, part in zip(masks, axis.parts, strict=True)
        ]
        if axis.kind is Kind.SUM:
            return np.concatenate(full)
        result = full[0]
        for mask in full[1:]:
            result = np.logical_and.outer(result, mask).ravel()
        return result

    def dynamic_mask(self, axis: Axis, size: int) -> BoolArray | None:
        """Return the keep-mask of ``axis`` at run time, where its whole size is ``size``.

        Works for axes of known size and for products with one dynamic factor, which is kept whole.
        """
        if isinstance(resolve(axis).size, int):
            return self.mask(axis)
        if self.count(axis) == resolve(axis).size:
            return None
        known = int(multiply(f.size for f in factors(axis) if isinstance(f.size, int)))
        result = np.ones(1, bool)
        for factor in factors(axis):
            mask = self.mask(factor) if isinstance(factor.size, int) else None
            length = factor.size if isinstance(factor.size, int) else size // known
            result = np.logical_and.outer(result, np.ones(length, bool) if mask is None else mask).ravel()
        return result

    def count(self, axis: Axis) -> Size:
        """Return how many elements of ``axis`` are kept: its new size."""
        axis = resolve(axis)
        if axis.identity not in self._counts:
            self._counts[axis.identity] = self._count(axis)
        return self._counts[axis.identity]

    def _count(self, axis: Axis) -> Size:
        if axis.kind is Kind.LEAF:
            mask = self._by_leaf.get(axis.identity)
            return axis.size if mask is None else int(mask.sum())
        counts = [self.count(part) for part in axis.parts]
        if axis.kind is Kind.PRODUCT:
            return multiply(counts)
        total: Size = 0
        for count in counts:
            total = total + count
        return total

    def kept_before(self, axis: Axis, position: int) -> int:
        """Return how many of the first ``position`` elements of ``axis`` are kept: where that position moves to."""
        mask = self.mask(axis)
        return position if mask is None else int(mask[:position].sum())

    def changes(self, axis: Axis) -> bool:
        """Say whether any element of ``axis`` is removed."""
        return self.count(axis) != resolve(axis).size
