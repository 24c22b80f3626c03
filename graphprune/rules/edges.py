"""Free selections: edges on which a reader takes its own subset of the channels of a shared value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

import graphprune.ops  # noqa: F401  (registers the op)
from graphprune.axes import size_of
from graphprune.rules.context import CannotInfer, Inference, NewBuffer, Resizing, Subset, Typed
from graphprune.rules.registry import Arguments, resize, rule


@rule("graphprune::select_channels")
def select_channels(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... a ... -> ... b ... (b is free, but keeps nothing that a does not keep)"""
    axes = context.axes(arguments["x"])
    d = arguments["dim"] % len(axes)
    size = size_of(axes[d])
    if not isinstance(size, int):
        raise CannotInfer("a free selection from an axis of dynamic size")
    selected = context.solver.leaf(size)
    context.subsets.append(Subset(node.name, axes[d], selected))
    context.notes[node.name] = context.subsets[-1]
    return [*axes[:d], selected, *axes[d + 1 :]]


@resize("graphprune::select_channels")
def resize_select_channels(resizing: Resizing, node: fx.Node, arguments: Arguments) -> Any:
    """Become an ``index_select``, a slice where the positions are consecutive, or nothing where all are taken."""
    edge: Subset = resizing.notes[node.name]
    positions = edge.positions(resizing.masks)
    x, dim = arguments["x"], arguments["dim"]
    arguments.clear()
    if len(positions) == resizing.count(edge.whole):
        arguments.update(self=x)
        return x
    start, stop = int(positions[0]), int(positions[-1]) + 1
    if stop - start == len(positions):
        arguments.update(self=x, dim=dim, start=start, end=stop, step=1)
        return torch.ops.aten.slice.Tensor
    value = torch.from_numpy(np.ascontiguousarray(positions)).to(x.meta["val"].device)
    arguments.update(self=x, dim=dim, index=NewBuffer(f"{node.name}_positions", value))
    return torch.ops.aten.index_select.default
