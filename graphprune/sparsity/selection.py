"""Picks the lowest of many scores: an exact number of them, and the same ones every time."""

from __future__ import annotations

import torch


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a boolean vector that is True at exactly the ``count`` lowest of ``scores`` (a vector without NaN).

    Of equal scores the earlier go first, so the result depends on nothing but the scores.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count).values
    chosen = scores < threshold
    ties = (scores == threshold).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def lowest_of_each_row(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a boolean tensor like ``scores``, True at the ``count`` lowest along the last axis."""
    order = scores.argsort(dim=-1, stable=True)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    return chosen.scatter_(-1, order[..., :count], True)
