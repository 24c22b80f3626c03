"""Scores sections of a graph by what the model would lose without each: higher means more worth keeping."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from graphprune.analysis import Analysis
from graphprune.axes import leaves
from graphprune.batches import batches_of
from graphprune.calibration import Loss, loss_of, observe_values, run_batch, undisturbed
from graphprune.sections.bypass import bypass
from graphprune.sections.residuals import Section

Scores = dict[str, float]
"""Title of a section -> its score."""


def influences(
    analysis: Analysis, sections: Sequence[Section], data: Iterable[Any], *, batches: int | None = None
) -> Scores:
    """Return the block influence of each section: one minus the mean cosine between its entry and its exit.

    The cosine is taken along the features (channels, embedding width) of each position of each sample. Men et al. 2024,
    "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect".

    Args:
        analysis: of the graph the sections are of.
        sections: to score.
        data: batches, of the forms that :mod:`graphprune.batches` lists.
        batches: how many of them to use; None for all.

    Raises:
        PassError: if the data is empty or misshapen.
    """
    leaving: defaultdict[fx.Node, list[Section]] = defaultdict(list)
    waiting: defaultdict[fx.Node, list[Section]] = defaultdict(list)
    for section in sections:
        leaving[section.exit].append(section)
        waiting[section.entry].append(section)
    entered: dict[str, torch.Tensor] = {}
    sums: dict[str, float] = dict.fromkeys((section.title for section in sections), 0.0)
    positions = dict.fromkeys(sums, 0)

    def observe(node: fx.Node, value: torch.Tensor) -> None:
        for section in leaving[node]:
            first, axis = entered.pop(section.title), _feature_axis(analysis, section.exit)
            kind = torch.promote_types(value.dtype, torch.float32)
            cosines = torch.cosine_similarity(first.to(kind), value.to(kind), dim=axis)
            sums[section.title] += cosines.double().sum().item()
            positions[section.title] += cosines.numel()
        for section in waiting[node]:
            entered[section.title] = value

    nodes = [node for section in sections for node in (section.entry, section.exit)]
    observe_values(analysis.gm, {node: partial(observe, node) for node in nodes}, data, batches=batches)
    return {title: 1 - total / max(positions[title], 1) for title, total in sums.items()}


def _feature_axis(analysis: Analysis, node: fx.Node) -> int:
    """Return the axis that a dimension runs along, or else the last."""
    prunable = {dimension.leaf for dimension in analysis.dimensions}
    for position, axis in enumerate(analysis.typing.types[node]):
        if not isinstance(axis, list) and any(leaf.identity in prunable for leaf in leaves(axis)):
            return position
    return -1


def loss_increases(
    gm: fx.GraphModule, sections: Sequence[Section], data: Iterable[Any], loss: Loss, *, batches: int | None = None
) -> Scores:
    """Return by how much the mean loss grows if each section alone is left out; infinity where it is not finite.

    Args:
        gm: a traced graph; it runs in evaluation mode.
        sections: to score.
        data: batches, of the forms that :mod:`graphprune.batches` lists.
        loss: called as ``loss(output, batch)`` with the whole batch; returns a scalar tensor.
        batches: how many of them to use; None for all.

    Raises:
        PassError: if the data is empty or misshapen, or the loss of the whole model is not a finite scalar.
    """

    def increase(batch: Any, index: int, without: fx.GraphModule) -> float:
        grown = float(loss(run_batch(without, batch, index), batch))
        return grown - before[index] if math.isfinite(grown) else math.inf

    before: dict[int, float] = {}

    def measure(batch: Any, index: int) -> None:
        before[index] = loss_of(gm, batch, index, loss).item()

    return _mean_over_batches(gm, sections, data, batches, measure, increase)


def output_changes(
    gm: fx.GraphModule, sections: Sequence[Section], data: Iterable[Any], *, batches: int | None = None
) -> Scores:
    """Return by how much the outputs change if each section alone is left out, relative to their norms.

    Arguments and errors as for :func:`loss_increases`.
    """
    before: dict[int, list[torch.Tensor]] = {}

    def measure(batch: Any, index: int) -> None:
        before[index] = _floating(run_batch(gm, batch, index))

    def change(batch: Any, index: int, without: fx.GraphModule) -> float:
        pairs = list(zip(before[index], _floating(run_batch(without, batch, index)), strict=True))
        difference = sum(float((new - old).norm() ** 2) for old, new in pairs)
        change = math.sqrt(difference / max(sum(float(old.norm() ** 2) for old, _ in pairs), 1e-30))
        return change if math.isfinite(change) else math.inf

    return _mean_over_batches(gm, sections, data, batches, measure, change)


def _floating(outputs: Any) -> list[torch.Tensor]:
    tensors = (leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))
    return [tensor.double() for tensor in tensors if tensor.is_floating_point()]


def _mean_over_batches(
    gm: fx.GraphModule,
    sections: Sequence[Section],
    data: Iterable[Any],
    batches: int | None,
    measure: Callable[[Any, int], None],
    score: Callable[[Any, int, fx.GraphModule], float],
) -> Scores:
    """Run each batch through the whole model (``measure``), then through the model without each section (``score``)."""
    totals: Scores = dict.fromkeys((section.title for section in sections), 0.0)
    count = 0
    with undisturbed(gm), torch.no_grad():
        without: Mapping[str, fx.GraphModule] = {s.title: bypass(gm, [s], share=True) for s in sections}
        for count, batch in enumerate(batches_of(gm, data, batches, "layers"), start=1):
            measure(batch, count - 1)
            for title, smaller in without.items():
                totals[title] += score(batch, count - 1, smaller)
    return {title: total / count for title, total in totals.items()}
