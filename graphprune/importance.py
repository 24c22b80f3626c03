"""Scores the units of dimensions: element saliencies summed over everything that leaves with a unit."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from graphprune.analysis import Analysis
from graphprune.axes import project
from graphprune.criteria import Criterion
from graphprune.dimensions import Dimension
from graphprune.errors import PassError
from graphprune.graph import get_attribute

FloatArray = NDArray[np.float64]


def unit_scores(analysis: Analysis, criterion: Criterion, dimensions: Collection[Dimension]) -> dict[str, FloatArray]:
    """Return a score for each unit of each dimension: dimension name -> float64 array of the dimension's size.

    The saliency of a unit is the sum over all elements, of all parameters, that leave with it. Dimensions of which
    no parameter is scored by the criterion (batch-norm scales, where there is no batch norm) are absent.

    Raises:
        PassError: if a score is not a finite number.
    """
    paths = _distinct(analysis, {path for dimension in dimensions for path, _ in dimension.members})
    scored = criterion.scored(analysis.gm, paths)
    saliency = criterion.saliency(analysis.gm, paths)
    totals: dict[int, FloatArray] = {}
    for path in paths:
        if path not in scored:
            continue
        values = saliency[path].detach().double().cpu().numpy()
        for d, axis in enumerate(analysis.typing.attributes[path]):
            others = tuple(i for i in range(values.ndim) if i != d)
            for leaf, score in project(axis, values.sum(axis=others), np.sum):
                totals[leaf.identity] = totals.get(leaf.identity, 0) + score
    result = {}
    for dimension in dimensions:
        total = totals.get(dimension.leaf)
        if total is not None:
            result[dimension.name] = _finished(criterion, total, dimension)
    return result


def _distinct(analysis: Analysis, paths: Collection[str]) -> list[str]:
    """Return ``paths`` in graph order, one for each tensor (tied parameters count once)."""
    by_tensor: dict[int, str] = {}
    for path in analysis.typing.attributes:
        if path in paths:
            by_tensor.setdefault(id(get_attribute(analysis.gm, path)), path)
    return list(by_tensor.values())


def _finished(criterion: Criterion, total: FloatArray, dimension: Dimension) -> FloatArray:
    scores = criterion.finish(torch.from_numpy(total)).numpy()
    if not np.isfinite(scores).all():
        raise PassError(
            f"{type(criterion).__name__} gives {dimension.name} scores that are not finite",
            hint="look for NaN or infinity in the weights, the data or the loss",
        )
    return scores
