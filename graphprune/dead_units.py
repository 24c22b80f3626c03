"""Finds units that can leave without changing any output, and the constants they leave behind.

A unit is dead if, wherever it is read, either nobody looks (the weights that read it are zero) or it is a constant
that the reader's bias can take over.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from graphprune.analysis import Analysis
from graphprune.axes import Axis, leaves, project
from graphprune.constants import AbstractValues
from graphprune.graph import bind_arguments, get_attribute, op_name
from graphprune.rules.context import flatten
from graphprune.units.dimensions import Dimension

_CONTRACTIONS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})


@dataclass(frozen=True)
class Reader:
    """A linear or convolution that reads a value: its node, and the value's constants by position of the read axis.

    Attributes:
        node: the linear or convolution.
        axis: type of the axis of its input that it contracts.
        constants: float tensor of the axis's size, NaN where the value depends on the inputs.
        ignored: boolean tensor of the axis's size, True where all weights that read the position are zero.
    """

    node: fx.Node
    axis: Axis
    constants: torch.Tensor
    ignored: torch.Tensor


@dataclass
class DeadUnits:
    """The result of :func:`find_dead_units`.

    Attributes:
        keep: dimension name -> keep-mask, for dimensions with dead units.
        readers: every linear and convolution, for folding constants.
        skipped: dimension name -> why its units were not considered.
    """

    keep: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def find_dead_units(analysis: Analysis, values: AbstractValues) -> DeadUnits:
    """Return the dead units of every dimension, given the graph's constants."""
    result = DeadUnits()
    alive: dict[int, torch.Tensor] = {d.leaf: torch.zeros(d.size, dtype=torch.bool) for d in analysis.dimensions}
    by_leaf = {dimension.leaf: dimension for dimension in analysis.dimensions}
    for dimension in analysis.dimensions:
        if dimension.statistics:
            result.skipped[dimension.name] = f"{dimension.statistics[0]} computes a statistic over it"
    for node in analysis.gm.graph.nodes:
        if node.op != "call_function" or node not in analysis.typing.types:
            continue
        reader = _reader(analysis, node, values)
        if reader is not None:
            result.readers.append(reader)
            _mark(alive, reader.axis, torch.isnan(reader.constants) & ~reader.ignored)
        for operand in node.all_input_nodes:
            if operand.op != "get_attr" and operand in analysis.typing.types:
                _check_vanishing(analysis, node, operand, reader, values, alive, by_leaf, result)
    for leaf, mask in alive.items():
        dimension = by_leaf[leaf]
        if dimension.name in result.skipped or mask.all():
            continue
        if not mask.any():
            mask[0] = True  # a dimension never vanishes altogether
        result.keep[dimension.name] = mask.numpy()
    return result


def _reader(analysis: Analysis, node: fx.Node, values: AbstractValues) -> Reader | None:
    """Return how a linear or convolution reads its input, or None for other nodes."""
    if op_name(node) not in _CONTRACTIONS:
        return None
    arguments = bind_arguments(node)
    weight_node = arguments["weight"]
    if weight_node.op != "get_attr":
        return None
    value, weight = values[arguments["input"]], get_attribute(analysis.gm, str(weight_node.target)).detach()
    assert value is not None
    rank = weight.dim() - 2
    channels = value.movedim(-1 - rank, 0).reshape(value.shape[-1 - rank], -1)
    uniform = (channels == channels[:, :1]).all(1)
    constants = channels[:, 0].masked_fill(~uniform, float("nan"))
    if _is_padded(arguments):
        constants = constants.masked_fill(constants != 0, float("nan"))
    groups = arguments.get("groups", 1)
    by_group = (weight == 0).flatten(2).all(2) if rank else weight == 0
    ignored = by_group.view(groups, -1, weight.shape[1]).all(1).flatten()
    axis = analysis.typing.types[arguments["input"]][-1 - rank]
    assert isinstance(axis, Axis)
    return Reader(node, axis, constants, ignored)


def _is_padded(arguments: dict[str, Any]) -> bool:
    padding = arguments.get("padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def _check_vanishing(
    analysis: Analysis,
    node: fx.Node,
    operand: fx.Node,
    reader: Reader | None,
    values: AbstractValues,
    alive: dict[int, torch.Tensor],
    by_leaf: dict[int, Dimension],
    result: DeadUnits,
) -> None:
    """Where a dimension vanishes in an op other than a reader, its dead units must be known zeros."""
    own = Counter(leaf.identity for axis in analysis.typing.types[operand] for leaf in _leaves(axis))
    output = {leaf.identity for axis in flatten(analysis.typing.types[node]) for leaf in leaves(axis)}
    for identity, count in own.items():
        if identity not in alive:
            continue
        if count > 1:
            result.skipped[by_leaf[identity].name] = f"{operand.name} has it on two axes"
        if identity in output or reader is not None:
            continue
        value = values[operand]
        if value is None:
            result.skipped[by_leaf[identity].name] = f"{operand.name} has no floating value"
            continue
        for d, axis in enumerate(analysis.typing.types[operand]):
            if isinstance(axis, Axis) and any(leaf.identity == identity for leaf in leaves(axis)):
                others = [i for i in range(value.dim()) if i != d]
                nonzero = ~(value == 0)
                _mark(alive, axis, nonzero.amax(others) if others else nonzero)


def _leaves(item: Any) -> list[Axis]:
    axes = item if isinstance(item, list) else [item]
    return [leaf for axis in axes for leaf in leaves(axis)]


def _mark(alive: dict[int, torch.Tensor], axis: Axis, positions: torch.Tensor) -> None:
    """Mark as alive every unit that has one of ``positions`` (a boolean tensor over ``axis``)."""
    for leaf, live in project(axis, positions.numpy(), np.any):
        if leaf.identity in alive:
            alive[leaf.identity] |= torch.from_numpy(live)
