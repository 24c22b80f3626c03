"""Scores the units of dimensions: element saliencies summed over everything that leaves with a unit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from graphprune.analysis import Analysis
from graphprune.axes import Axis, Presence, coordinates, presence, project
from graphprune.criteria import Criterion
from graphprune.dimensions import Dimension
from graphprune.errors import PassError
from graphprune.graph import get_attribute

FloatArray = NDArray[np.float64]


def unit_scores(
    analysis: Analysis, criterion: Criterion, dimensions: Collection[Dimension], uneven: Mapping[str, str] | None = None
) -> dict[str, FloatArray]:
    """Return a score for each unit of each dimension: dimension name -> float64 array of the dimension's size.

    With ``uneven`` (dimension name -> name of its outer dimension, see ``Analysis.unevenness``) the array is
    ``[outer size, size]`` for those dimensions.

    The saliency of a unit is the sum over all elements, of all parameters, that leave with it. Dimensions of which
    no parameter is scored by the criterion (batch-norm scales, where there is no batch norm) are absent.

    Raises:
        PassError: if a score is not a finite number.
    """
    paths = _distinct(analysis, {path for dimension in dimensions for path, _ in dimension.members})
    scored = criterion.scored(analysis.gm, paths)
    saliency = criterion.saliency(analysis.gm, paths)
    totals: dict[int, FloatArray] = {}
    by_name = {dimension.name: dimension for dimension in analysis.dimensions}
    outers = {by_name[inner]: by_name[outer] for inner, outer in (uneven or {}).items()}
    grids = {inner: np.zeros((outer.size, inner.size)) for inner, outer in outers.items()}
    for path in paths:
        if path not in scored:
            continue
        values = saliency[path].detach().double().cpu().numpy()
        for d, axis in enumerate(analysis.typing.attributes[path]):
            others = tuple(i for i in range(values.ndim) if i != d)
            for leaf, score in project(axis, values.sum(axis=others), np.sum):
                totals[leaf.identity] = totals.get(leaf.identity, 0) + score
        for inner, outer in outers.items():
            _add_by_block(grids[inner], values, analysis.typing.attributes[path], inner.leaf, outer.leaf)
    result = {}
    for dimension in dimensions:
        total = totals.get(dimension.leaf)
        if total is not None and dimension in grids:
            total = grids[dimension]
        if total is not None:
            result[dimension.name] = _finished(criterion, total, dimension)
    return result


def _add_by_block(grid: FloatArray, values: FloatArray, axes: Sequence[Axis], inner: int, outer: int) -> None:
    """Add the values of a tensor to the (outer, inner) elements of ``grid`` that they belong to."""
    for d, axis in enumerate(axes):
        if presence(axis, inner) is Presence.ABSENT:
            continue
        at_inner, at_outer = (coordinates(axis, leaf, values.shape[d]) for leaf in (inner, outer))
        own = (at_inner >= 0) & (at_outer >= 0)
        others = tuple(i for i in range(values.ndim) if i != d)
        np.add.at(grid, (at_outer[own], at_inner[own]), values.sum(axis=others)[own])
        rest = (at_inner >= 0) & (at_outer < 0)
        holders = [e for e in others if presence(axes[e], outer) is not Presence.ABSENT]
        if rest.any() and holders:
            (e,) = holders
            table = values.sum(axis=tuple(i for i in others if i != e))
            table = table if e < d else table.T
            blocks = coordinates(axes[e], outer, values.shape[e])
            np.add.at(grid, (blocks[:, None], at_inner[rest][None]), table[:, rest])


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
