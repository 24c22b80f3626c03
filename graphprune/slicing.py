"""Cuts tensors by keep-masks: takes the kept part out, puts it back, zeroes the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphprune.axes import Axis, KeepMasks


def take_kept(tensor: torch.Tensor, axes: Sequence[Axis], masks: KeepMasks) -> torch.Tensor:
    """Return the kept part of a tensor whose axes have the types ``axes``; the tensor itself if all of it is kept."""
    for selection in masks.selections(axes, tensor.shape):
        positions = torch.from_numpy(selection.positions).to(tensor.device)
        if positions.dim() == 1:
            tensor = tensor.index_select(selection.dim, positions)
        else:
            tensor = torch.take_along_dim(tensor, positions, selection.dim)
    return tensor


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
