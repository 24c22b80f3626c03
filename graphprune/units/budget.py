"""Turns scores and a ratio into keep-masks, and finds the ratio that meets a cost budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from graphprune.errors import PassError

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

SEARCH_STEPS = 16
"""Bisections of [0, 1]: finer than one unit of any dimension up to 65,536 units."""


def kept_count(size: int, removed: int, round_to: int, min_keep: int) -> int:
    """Return how many units of ``size`` to keep: at least ``min_keep``, rounded *up* to a multiple of ``round_to``."""
    kept = max(size - removed, min_keep, 1)
    return min(size, math.ceil(kept / round_to) * round_to)


def keep_highest(scores: FloatArray, count: int) -> BoolArray:
    """Return the mask of the ``count`` highest scores (of each row); among equal scores the first positions stay."""
    mask = np.zeros(scores.shape, bool)
    highest = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    np.put_along_axis(mask, highest, True, axis=-1)
    return mask


def by_rank(scores: FloatArray) -> FloatArray:
    """Return one score for each unit that an uneven choice removes *everywhere*: the mean over blocks, rank by rank."""
    return np.sort(scores, axis=-1)[..., ::-1].mean(axis=0) if scores.ndim == 2 else scores


def uniform_masks(
    scores: Mapping[str, FloatArray],
    ratio: Callable[[str], float],
    round_to: int,
    min_keep: float,
    least: Mapping[str, int] | None = None,
) -> dict[str, BoolArray]:
    """Remove the same fraction of every dimension: ``ratio(name)`` of its units, rounded down.

    Args:
        scores: dimension name -> scores of its units, or ``[blocks, units]`` where each block chooses for itself.
        ratio: fraction to remove, by dimension name.
        round_to: kept counts are multiples of it where the dimension is large enough.
        min_keep: least fraction of a dimension to keep.
        least: dimension name -> least number of its units to keep; 1 for names that are absent.
    """
    masks = {}
    for name, values in scores.items():
        size = values.shape[-1]
        count = kept_count(size, int(size * ratio(name) + 1e-9), round_to, _fewest(name, size, min_keep, least))
        masks[name] = keep_highest(values, count)
    return masks


def _fewest(name: str, size: int, min_keep: float, least: Mapping[str, int] | None) -> int:
    return max(math.ceil(size * min_keep), (least or {}).get(name, 1))


def global_masks(
    scores: Mapping[str, FloatArray],
    ratio: float,
    round_to: int,
    min_keep: float,
    least: Mapping[str, int] | None = None,
) -> dict[str, BoolArray]:
    """Remove the lowest ``ratio`` of all units together.

    Scores are divided by their dimension's mean first, so that dimensions of different scale compete fairly.
    Arguments as for :func:`uniform_masks`.
    """
    ranked = {name: by_rank(values) for name, values in scores.items()}
    names = [name for name, values in ranked.items() for _ in values]
    relative = np.concatenate([values / (values.mean() or 1.0) for values in ranked.values()] or [np.zeros(0)])
    lowest = np.argsort(relative, kind="stable")[: int(len(relative) * ratio + 1e-9)]
    removed: dict[str, int] = dict.fromkeys(scores, 0)
    for position in lowest:
        removed[names[position]] += 1
    masks = {}
    for name, values in scores.items():
        size = values.shape[-1]
        count = kept_count(size, removed[name], round_to, _fewest(name, size, min_keep, least))
        masks[name] = keep_highest(values, count)
    return masks


def smallest_ratio(cost: Callable[[float], int], budget: int, name: str) -> float:
    """Return the smallest ratio in [0, 1] whose cost is at most ``budget``, by bisection.

    Raises:
        PassError: if even ratio 1 (every dimension at its minimum) costs more.
    """
    if cost(0.0) <= budget:
        return 0.0
    least = cost(1.0)
    if least > budget:
        raise PassError(
            f"the budget of {budget:,} {name} cannot be met: the least reachable is {least:,}",
            hint="allow more kinds of dimensions (kinds=...), lower min_keep, or raise the budget",
        )
    low, high = 0.0, 1.0
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget else (middle, high)
    return high
