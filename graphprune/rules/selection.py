"""Selections at constant positions: what index ops share to follow them and to renumber them when units go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from graphprune.axes import Axis, known_size, pin_of, product, size_of
from graphprune.axes.gathering import touched
from graphprune.rules.context import Inference, NewConstant, Resizing

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Elements ``positions`` of ``base``, which became ``result``.

    Attributes:
        base: the axis that was looked into.
        positions: flat, non-negative.
        result: axes of the index tensor in the result; their product has one element for each position.
    """

    base: Axis
    positions: IntArray
    result: tuple[Axis, ...]

    def moved(self, resizing: Resizing) -> IntArray | None:
        """Return the positions in the smaller graph, in the shape of the smaller index; None if nothing changed."""
        if not resizing.masks.changes(self.base) and not any(map(resizing.masks.changes, self.result)):
            return None
        kept, kept_base = resizing.masks.mask(product(self.result)), resizing.masks.mask(self.base)
        positions = self.positions if kept is None else self.positions[kept]
        if kept_base is not None:
            positions = (np.cumsum(kept_base) - 1)[positions]
        return positions.reshape([int(resizing.count(axis)) for axis in self.result])


def constant_positions(
    context: Inference, node: fx.Node, axis: Axis, *, allow_repeated_rows: bool = False
) -> IntArray | None:
    """Return the non-negative positions that the integer ``node`` holds, or None if they are not constant.

    Nothing is computed for an axis that is pinned or dynamic: nobody would follow them. A table of several axes with
    repetitions is no row-major product of selections; unless they are allowed, None is returned for it, too.
    """
    if pin_of(axis) is not None or not isinstance(size_of(axis), int):
        return None
    value = context.constant_value(node)
    if value is None or value.is_floating_point() or value.dtype in (torch.bool, torch.uint8) or not value.numel():
        return None
    positions = value.detach().cpu().numpy().astype(np.int64)
    size = known_size(axis)
    positions = np.where(positions < 0, positions + size, positions)
    if positions.min() < 0 or positions.max() >= size:
        return None
    if positions.ndim > 1 and not allow_repeated_rows and touched(positions, size).sum() < positions.size:
        return None
    return positions


def select(context: Inference, node: fx.Node, axis: Axis, positions: IntArray) -> list[Axis]:
    """Return the axes of an index tensor that holds ``positions`` of ``axis``, noting the selection for resizing."""
    taken = context.solver.gather(axis, positions.ravel())
    if positions.ndim == 1:
        result = [taken]
    elif positions.ndim == 0:
        context.pin(taken, "selected by position")
        result = []
    else:
        result = context.solver.refine(taken, positions.shape)
    context.notes[node.name] = Selection(axis, positions.ravel(), tuple(result))
    return result


def new_index(resizing: Resizing, node: fx.Node, operand: fx.Node, like: Sequence[Axis] | None = None) -> object:
    """Return what replaces the index ``operand`` of ``node``: the operand itself if no selection was noted or changed.

    Args:
        like: if given, the index has all these axes in the smaller graph and the selected one is repeated along them;
            the selection's axis must be among them.
    """
    selection = resizing.notes.get(node.name)
    if not isinstance(selection, Selection):
        return operand
    moved = selection.moved(resizing)
    if like is not None and moved is None and any(map(resizing.masks.changes, like)):
        moved = selection.positions
    if moved is None:
        return operand
    value = torch.from_numpy(np.ascontiguousarray(moved)).to(operand.meta["val"].dtype)
    if like is not None:
        (own,) = selection.result
        shape = [-1 if axis is own else 1 for axis in like]
        value = value.view(shape).expand([int(resizing.count(axis)) for axis in like]).contiguous()
    return NewConstant(operand, value.to(operand.meta["val"].device))
