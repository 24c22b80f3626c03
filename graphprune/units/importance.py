"""Scores the units of dimensions: element saliencies summed over everything that leaves with a unit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from graphprune.analysis import Analysis
from graphprune.axes import Axis, Presence, coordinates, leaves, presence, project, resolve
from graphprune.criteria import Criterion
from graphprune.errors import PassError
from graphprune.units.dimensions import Dimension

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
    positions = {dimension.name: criterion.by_position(dimension.size) for dimension in dimensions}
    if any(scores is not None for scores in positions.values()):
        sizes = {dimension.name: dimension.size for dimension in analysis.dimensions}
        repeats = {inner: (sizes[outer], 1) for inner, outer in (uneven or {}).items()}
        return {
            name: np.tile(scores.numpy(), repeats.get(name, (1,)))
            for name, scores in positions.items()
            if scores is not None
        }
    paths = _distinct(analysis, {path for dimension in dimensions for path, _ in dimension.members})
    by_axis: dict[int, tuple[Axis, FloatArray]] = {}
    by_name = {dimension.name: dimension for dimension in analysis.dimensions}
    outers = {by_name[inner]: by_name[outer] for inner, outer in (uneven or {}).items()}
    grids = {inner: np.zeros((outer.size, inner.size)) for inner, outer in outers.items()}
    wanted = {dimension.leaf for dimension in dimensions}
    for path, pieces in criterion.in_pieces(analysis.gm, paths):
        axes = analysis.typing.attributes[path]
        needed = [d for d, axis in enumerate(axes) if any(leaf.identity in wanted for leaf in leaves(axis))]
        if not needed:
            continue
        if outers:  # blocks need the whole weight at once
            whole = torch.cat([piece.double() for piece in pieces])
            pieces = iter([whole])
            for inner, outer in outers.items():
                _add_by_block(grids[inner], whole.cpu().numpy(), axes, inner.leaf, outer.leaf)
        for d, sums in _sums_along(needed, pieces).items():
            axis = resolve(axes[d])
            before = by_axis[axis.identity][1] if axis.identity in by_axis else 0
            by_axis[axis.identity] = axis, before + sums
    totals: dict[int, FloatArray] = {}
    for axis, sums in by_axis.values():
        for leaf, score in project(axis, sums, np.sum):
            totals[leaf.identity] = totals.get(leaf.identity, 0) + score
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


def _sums_along(axes: Sequence[int], pieces: Iterator[torch.Tensor]) -> dict[int, FloatArray]:
    """Return, for each of ``axes``, the sums over all others, of a tensor that comes in pieces along axis 0."""
    parts: list[torch.Tensor] = []
    totals: dict[int, torch.Tensor] = {}
    for piece in pieces:
        for d in axes:
            # Sums over leading axes first: they vectorise; what is left to sum over small trailing axes is little.
            rows = piece.flatten(0, d - 1).sum(0) if d else piece
            sums = rows.reshape(piece.shape[d], -1).sum(1)
            if d == 0:
                parts.append(sums)
            elif d in totals:
                totals[d] += sums
            else:
                totals[d] = sums.double()
    if parts:
        totals[0] = torch.cat(parts).double()
    return {d: total.cpu().numpy() for d, total in totals.items()}


def _distinct(analysis: Analysis, paths: Collection[str]) -> list[str]:
    """Return ``paths`` in graph order, one for each tensor (tied parameters, which share their axes, count once)."""
    by_tensor: dict[int, str] = {}
    for path, axes in analysis.typing.attributes.items():
        if path in paths:
            by_tensor.setdefault(id(axes), path)
    return list(by_tensor.values())


def _finished(criterion: Criterion, total: FloatArray, dimension: Dimension) -> FloatArray:
    scores = criterion.finish(torch.from_numpy(total)).numpy()
    if not np.isfinite(scores).all():
        raise PassError(
            f"{type(criterion).__name__} gives {dimension.name} scores that are not finite",
            hint="look for NaN or infinity in the weights, the data or the loss",
        )
    return scores
