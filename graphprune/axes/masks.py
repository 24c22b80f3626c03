"""Evaluates keep-masks and new sizes of any axis from the masks of its leaves.

Most leaves have one mask. A *fibred* leaf has one for each element of another leaf, its outer leaf: each attention head
keeps head dimensions of its own, each group of a convolution channels of its own, and all keep equally many. In
``heads * width`` the mask of ``width`` then depends on the head, be it in one axis or on another axis of the tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphprune.axes.axis import Axis, Kind, factors, known_size, leaves, resolve
from graphprune.axes.coordinates import Presence, coordinates, presence, run_time_lengths
from graphprune.axes.gathering import inverse
from graphprune.axes.size import Size, multiply
from graphprune.errors import MaskError

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fibre:
    """Which elements of a leaf are kept, for each element of its outer leaf.

    Attributes:
        outer: identity of the outer leaf, which is not fibred itself.
        keep: boolean ``[outer size, inner size]``, equally many True in every row.
    """

    outer: int
    keep: BoolArray


@dataclass(frozen=True, eq=False)
class Selection:
    """Which positions of one axis of a tensor are kept.

    Attributes:
        dim: the axis.
        positions: a sorted vector; or an array of the tensor's rank, to gather with along ``dim``, whose size is 1 on
            axes it does not depend on and the *kept* size on the others.
    """

    dim: int
    positions: IndexArray


class KeepMasks:
    """Keep-masks on leaves, extended to all axes.

    A product's mask is the outer product of its factors' masks, ravelled; a sum's is the concatenation of its terms';
    a gathered axis takes its elements' entries of the base's mask.

    Args:
        by_leaf: identity of a resolved leaf -> boolean array of the leaf's size, True where an element is kept.
        fibres: identity of a resolved leaf -> its masks by element of another leaf.
    """

    def __init__(self, by_leaf: Mapping[int, BoolArray], fibres: Mapping[int, Fibre] | None = None) -> None:
        self._by_leaf = {identity: mask for identity, mask in by_leaf.items() if not mask.all()}
        self._fibres = {identity: fibre for identity, fibre in (fibres or {}).items() if not fibre.keep.all()}
        self._masks: dict[int, BoolArray | None] = {}
        self._counts: dict[int, Size] = {}
        for identity, fibre in self._fibres.items():
            if fibre.outer in self._fibres or identity in self._by_leaf:
                raise MaskError("an axis whose blocks keep elements of their own cannot be chosen in another way too")
            if len(set(fibre.keep.sum(axis=1).tolist())) != 1:
                raise MaskError("blocks must keep equally many elements each")

    # ---------------------------------------------------------------------------------------------- one axis

    def mask(self, axis: Axis) -> BoolArray | None:
        """Return the keep-mask of ``axis``, or None if everything is kept.

        Raises:
            MaskError: if it depends on other axes of the tensor; :meth:`tensor_masks` knows those.
        """
        axis = resolve(axis)
        if axis.identity not in self._masks:
            self._masks[axis.identity] = self._evaluate(axis, {}, known_size(axis)) if self.changes(axis) else None
        return self._masks[axis.identity]

    def count(self, axis: Axis) -> Size:
        """Return how many elements of ``axis`` are kept: its new size."""
        axis = resolve(axis)
        if axis.identity not in self._counts:
            self._counts[axis.identity] = self._count(axis)
        return self._counts[axis.identity]

    def _count(self, axis: Axis) -> Size:
        if axis.kind is Kind.LEAF:
            if axis.identity in self._fibres:
                return int(self._fibres[axis.identity].keep[0].sum())
            mask = self._by_leaf.get(axis.identity)
            return axis.size if mask is None else int(mask.sum())
        if axis.kind is Kind.GATHERED:
            return self._count_gathered(axis)
        counts = [self.count(part) for part in axis.parts]
        if axis.kind is Kind.PRODUCT:
            return multiply(counts)
        total: Size = 0
        for count in counts:
            total = total + count
        return total

    def _count_gathered(self, axis: Axis) -> Size:
        assert axis.positions is not None
        base = axis.parts[0]
        if inverse(axis.positions, known_size(base)) is not None:
            return self.count(base)
        # Blocks keep equally many elements of the base, but not of a selection from it: such a mask is an error here.
        return int(self._evaluate(axis, {}, known_size(axis)).sum())

    def changes(self, axis: Axis) -> bool:
        """Say whether any element of ``axis`` is removed."""
        return self.count(axis) != resolve(axis).size

    def kept_before(self, axis: Axis, position: int) -> int:
        """Return how many of the first ``position`` elements of ``axis`` are kept: where that position moves to.

        Raises:
            MaskError: if it would move to different places in different blocks.
        """
        if not self.changes(axis):
            return position
        choices = [self._blocks(outer) for outer in self._open(axis)]
        moved = {
            int(self._evaluate(axis, dict(fixed), known_size(axis))[:position].sum())
            for fixed in itertools.product(*choices)
        }
        if len(moved) > 1:
            raise MaskError(f"position {position} of an axis lies at different places in different blocks")
        return moved.pop()

    def _blocks(self, outer: int) -> list[tuple[int, int]]:
        """Return (outer, element) for every element of an outer leaf."""
        (size,) = {len(fibre.keep) for fibre in self._fibres.values() if fibre.outer == outer}
        return [(outer, element) for element in range(size)]

    # ---------------------------------------------------------------------------------------------- one tensor

    def tensor_masks(self, axes: Sequence[Axis], shape: Sequence[int]) -> list[tuple[int, BoolArray]]:
        """Return (axis number, keep-mask) for every axis of a tensor that shrinks.

        Args:
            axes: types of the tensor's axes; a product may have one factor of dynamic size.
            shape: the tensor's sizes at run time.

        Returns:
            Masks that are vectors; or arrays of the tensor's rank with size 1 on the axes they do not depend on.

        Raises:
            MaskError: if a fibred axis stands without its outer axis.
        """
        result = []
        for d, axis in enumerate(axes):
            if not self.changes(axis):
                continue
            outers = self._open(axis)
            if outers:
                result.append((d, self._conditional(axes, shape, d, outers)))
            elif isinstance(resolve(axis).size, int):
                mask = self.mask(axis)
                assert mask is not None
                result.append((d, mask))
            else:
                result.append((d, self._evaluate(axis, {}, shape[d])))
        return result

    def selections(self, axes: Sequence[Axis], shape: Sequence[int]) -> list[Selection]:
        """Return how to cut the kept part out of a tensor: selections to apply in this order. Arguments as above."""
        masks = self.tensor_masks(axes, shape)
        plain = {d: np.flatnonzero(mask) for d, mask in masks if mask.ndim == 1}
        result = [Selection(d, positions) for d, positions in plain.items()]
        for d, mask in masks:
            if d in plain:
                continue
            for e, positions in plain.items():
                if mask.shape[e] > 1:
                    mask = mask.take(positions, axis=e)
            rows = np.moveaxis(mask, d, -1)
            kept = rows.nonzero()[-1].reshape(*rows.shape[:-1], -1)
            result.append(Selection(d, np.moveaxis(kept, -1, d)))
        return result

    def _conditional(self, axes: Sequence[Axis], shape: Sequence[int], d: int, outers: Sequence[int]) -> BoolArray:
        """Return the mask of axis ``d`` as an array over itself and the axes that hold the ``outers``."""
        blocks = [self._blocks(outer) for outer in outers]
        rows = [self._evaluate(axes[d], dict(fixed), shape[d]) for fixed in itertools.product(*blocks)]
        table = np.array(rows).reshape(*(len(choices) for choices in blocks), shape[d])
        index = []
        for outer in outers:
            holders = [e for e, axis in enumerate(axes) if e != d and presence(axis, outer) is not Presence.ABSENT]
            if len(holders) != 1 or presence(axes[holders[0]], outer) is not Presence.EVERYWHERE:
                raise MaskError("an axis whose blocks keep elements of their own stands without the axis of the blocks")
            index.append(_along(coordinates(axes[holders[0]], outer, shape[holders[0]]), holders[0], len(axes)))
        return table[(*index, _along(np.arange(shape[d]), d, len(axes)))]

    # ---------------------------------------------------------------------------------------------- evaluation

    def _open(self, axis: Axis) -> list[int]:
        """Return the outer leaves that fibred leaves of ``axis`` depend on and that do not precede them in it."""
        axis = resolve(axis)
        if not self._fibres:
            return []
        if axis.kind is Kind.LEAF:
            return [self._fibres[axis.identity].outer] if axis.identity in self._fibres else []
        if axis.kind is Kind.GATHERED:
            return self._open(axis.parts[0])
        found: dict[int, None] = {}
        seen: set[int] = set()
        for part in axis.parts if axis.kind is Kind.SUM else factors(axis):
            found |= dict.fromkeys(outer for outer in self._open(part) if outer not in seen)
            if axis.kind is Kind.PRODUCT:
                seen |= {leaf.identity for leaf in leaves(part)}
        return list(found)

    def _evaluate(self, axis: Axis, fixed: Mapping[int, int], size: int) -> BoolArray:
        """Return the mask of an axis of run-time ``size`` at the elements ``fixed`` of outer leaves."""
        axis = resolve(axis)
        if axis.kind is Kind.LEAF:
            return self._leaf(axis, fixed, size)
        if axis.kind is Kind.SUM:
            return np.concatenate([self._evaluate(part, fixed, known_size(part)) for part in axis.parts])
        if axis.kind is Kind.GATHERED:
            return self._evaluate(axis.parts[0], fixed, known_size(axis.parts[0]))[axis.positions]
        return self._product(factors(axis), run_time_lengths(axis, size), fixed)

    def _leaf(self, leaf: Axis, fixed: Mapping[int, int], size: int) -> BoolArray:
        fibre = self._fibres.get(leaf.identity)
        if fibre is None:
            return self._by_leaf.get(leaf.identity, np.ones(size, bool))
        if fibre.outer not in fixed:
            raise MaskError("the kept elements of an axis depend on another axis of the tensor")
        return fibre.keep[fixed[fibre.outer]]

    def _product(self, parts: Sequence[Axis], lengths: Sequence[int], fixed: Mapping[int, int]) -> BoolArray:
        if not parts:  # all factors have become units since the product was made
            return np.ones(1, bool)
        head, rest, size = resolve(parts[0]), parts[1:], lengths[0]
        if not rest:
            return self._evaluate(head, fixed, size)
        steered = {self._fibres[leaf.identity].outer for part in rest for leaf in leaves(part) if self._is_fibred(leaf)}
        if steered.isdisjoint(leaf.identity for leaf in leaves(head)):
            own, others = self._evaluate(head, fixed, size), self._product(rest, lengths[1:], fixed)
            return np.logical_and.outer(own, others).ravel()
        own = self._evaluate(head, fixed, size)
        places = {
            leaf.identity: coordinates(head, leaf.identity, size) for leaf in leaves(head) if leaf.identity in steered
        }
        rows = []
        for element in range(size):
            here = {leaf: int(place[element]) for leaf, place in places.items() if place[element] >= 0}
            rows.append(self._product(rest, lengths[1:], {**fixed, **here}) & own[element])
        return np.concatenate(rows)

    def _is_fibred(self, leaf: Axis) -> bool:
        return leaf.identity in self._fibres


def _along(vector: IndexArray, d: int, rank: int) -> IndexArray:
    return vector.reshape([-1 if i == d else 1 for i in range(rank)])
