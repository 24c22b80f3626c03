"""Cuts tensors by keep-masks: takes the kept part out, puts it back, zeroes the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphprune.axes import Axis, KeepMasks

BLOCK = 1 << 19
"""Large tensors are cut in blocks of about this many elements, which stay in the cache from one axis to the next."""

Positions = tuple[int, torch.Tensor]
"""An axis and what to take along it: a vector, or indices to gather with."""


def take_kept(tensor: torch.Tensor, axes: Sequence[Axis], masks: KeepMasks) -> torch.Tensor:
    """Return the kept part of a tensor whose axes have the types ``axes``; the tensor itself if all of it is kept."""
    selections = masks.selections(axes, tensor.shape)
    taken = [(s.dim, torch.from_numpy(s.positions).to(tensor.device)) for s in selections]
    by_rows = len(taken) > 1 and taken[0][0] == 0 and all(positions.dim() == 1 for _, positions in taken)
    if by_rows and tensor.device.type == "cpu" and tensor.numel() > 8 * BLOCK:
        return _taken_in_blocks(tensor, taken[0][1], taken[1:])
    return _taken(tensor, taken)


def _taken(tensor: torch.Tensor, selections: Sequence[Positions]) -> torch.Tensor:
    for dim, positions in selections:
        if positions.dim() == 1:
            tensor = tensor.index_select(dim, positions)
        else:
            tensor = torch.take_along_dim(tensor, positions, dim)
    return tensor


def _taken_in_blocks(tensor: torch.Tensor, rows: torch.Tensor, others: Sequence[Positions]) -> torch.Tensor:
    """Take ``rows`` of a tensor and ``others`` of each, a few rows at a time."""
    shape = [len(rows), *tensor.shape[1:]]
    for dim, positions in others:
        shape[dim] = len(positions)
    result = tensor.new_empty(shape)
    others = [(dim, positions.int()) for dim, positions in others]  # which index_select takes in half the time
    for block, target in zip(*(t.split(max(1, BLOCK // tensor[0].numel())) for t in (rows, result)), strict=True):
        target.copy_(_taken(tensor.index_select(0, block), others))
    return result


def zero_removed(tensor: torch.Tensor, axes: Sequence[Axis], masks: KeepMasks) -> torch.Tensor:
    """Return a tensor of the same shape with zeros (False) at removed positions."""
    for d, mask in masks.tensor_masks(axes, tensor.shape):
        removed = torch.from_numpy(~mask).to(tensor.device)
        if removed.dim() == 1:
            removed = removed.view([-1 if i == d else 1 for i in range(tensor.dim())])
        tensor = tensor.masked_fill(removed, 0)
    return tensor


def put_back(kept: torch.Tensor, axes: Sequence[Axis], masks: KeepMasks, shape: Sequence[int]) -> torch.Tensor:
    """Return a tensor of ``shape`` with the elements of ``kept`` at their original positions, zeros elsewhere."""
    for selection in reversed(masks.selections(axes, shape)):
        d, positions = selection.dim, torch.from_numpy(selection.positions).to(kept.device)
        target = kept.new_zeros([*kept.shape[:d], shape[d], *kept.shape[d + 1 :]])
        if positions.dim() == 1:
            kept = target.index_copy(d, positions, kept)
        else:
            kept = target.scatter(d, positions.expand(kept.shape), kept)
    return kept
