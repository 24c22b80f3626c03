"""Ops that cut a part out of an axis, or write to it: slice, narrow, select."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import fx

from graphprune.axes import Axis, Size, pin_of, size_of
from graphprune.rules.context import Inference, Resizing, Typed, shape_of
from graphprune.rules.registry import Arguments, resize, rule


@dataclass(frozen=True)
class Cut:
    """What a slice or select took: positions ``start`` to ``stop`` of ``axis`` in steps of ``step``."""

    axis: Axis
    start: int
    stop: int
    step: int


@rule("slice")
def slice_axis(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + b + c) -> b; with a step, one residue of a product"""
    size = shape_of(node.meta["val"])[arguments["dim"]]
    return _slice(context, node, arguments["self"], arguments, size)


@rule("narrow")
def narrow(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + b + c) -> b"""
    start, length = arguments["start"], arguments["length"]
    stop = start + length if isinstance(start, int) and isinstance(length, int) else length
    bounds = {"dim": arguments["dim"], "start": start, "end": stop, "step": 1}
    return _slice(context, node, arguments["self"], bounds, shape_of(node.meta["val"])[arguments["dim"]])


def _slice(context: Inference, node: fx.Node, operand: fx.Node, bounds: Arguments, new_size: Size) -> list[Axis]:
    """Return the axes of the piece of ``operand`` within ``bounds``, noting the cut for resizing."""
    axes = context.axes(operand)
    d, step = bounds["dim"] % len(axes), bounds["step"] or 1
    axis, size = axes[d], size_of(axes[d])
    if new_size == size:
        return axes
    start, stop = 0 if bounds["start"] is None else bounds["start"], size if bounds["end"] is None else bounds["end"]
    if not (isinstance(size, int) and isinstance(start, int) and isinstance(stop, int)):
        return _pinned_cut(context, axes, d, new_size, "sliced at a dynamic position")
    start, stop, step = slice(start, stop, step).indices(size)
    if pin_of(axis) is not None:
        axes[d] = context.solver.pinned(new_size, "slice of a pinned axis")
    elif step == 1:
        _, tail = context.solver.split(axis, start)
        axes[d], _ = context.solver.split(tail, max(stop - start, 0))
    elif size % step == 0 and start < step and stop > size - step + start:
        axes[d], residue = context.solver.refine(axis, (size // step, step))
        context.pin(residue, "sliced with a step")
    else:
        return _pinned_cut(context, axes, d, new_size, "sliced with a step")
    context.notes[node.name] = Cut(axis, start, stop, step)
    return axes


def _pinned_cut(context: Inference, axes: list[Axis], d: int, size: Size, reason: str) -> list[Axis]:
    context.pin(axes[d], reason)
    axes[d] = context.solver.pinned(size, reason)
    return axes


@rule("slice_scatter")
def write_slice(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + b + c), b -> (a + b + c); the other axes are shared"""
    source = context.axes(arguments["src"])
    size = size_of(source[arguments["dim"]])
    for a, b in zip(_slice(context, node, arguments["self"], arguments, size), source, strict=True):
        context.unify(a, b)
    return context.axes(arguments["self"])


@resize("slice", "slice_scatter")
def resize_slice(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    cut = resizing.notes.get(node.name)
    if cut is None:
        d = arguments["dim"]
        if isinstance(arguments["end"], int) and resizing.masks.changes(resizing.axes(node)[d]):
            arguments["end"] = sys.maxsize
    elif resizing.masks.changes(cut.axis):
        if cut.step == 1:
            arguments["start"] = resizing.kept_before(cut.axis, cut.start)
            arguments["end"] = resizing.kept_before(cut.axis, cut.stop)
        else:
            arguments["end"] = sys.maxsize


@resize("narrow")
def resize_narrow(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    cut = resizing.notes.get(node.name)
    if cut is None:
        arguments["length"] = resizing.resized(arguments["length"], resizing.axes(node)[arguments["dim"]])
    else:
        arguments["start"] = resizing.kept_before(cut.axis, cut.start)
        arguments["length"] = resizing.kept_before(cut.axis, cut.stop) - arguments["start"]


@rule("select")
def select(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + 1! + b) -> (only the selected element is pinned)"""
    return _select(context, node, arguments)


@rule("select_scatter")
def write_element(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + 1! + b), ... -> (a + 1! + b) (only the element written to is pinned; the other axes are shared)"""
    for a, b in zip(_select(context, node, arguments), context.axes(arguments["src"]), strict=True):
        context.unify(a, b)
    return context.axes(arguments["self"])


def _select(context: Inference, node: fx.Node, arguments: Arguments) -> list[Axis]:
    """Return the axes but the one that an element is selected from, noting its position for resizing."""
    axes = context.axes(arguments["self"])
    d, index = arguments["dim"] % len(axes), arguments["index"]
    size = size_of(axes[d])
    if pin_of(axes[d]) is None and isinstance(size, int) and isinstance(index, int):
        position = index % size
        _, tail = context.solver.split(axes[d], position)
        element, _ = context.solver.split(tail, 1)
        context.pin(element, "selected by position")
        context.notes[node.name] = Cut(axes[d], position, position + 1, 1)
    else:
        context.pin(axes[d], "selected by position")
    return axes[:d] + axes[d + 1 :]


@resize("select", "select_scatter")
def resize_select(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    cut = resizing.notes.get(node.name)
    if cut is not None:
        arguments["index"] = resizing.kept_before(cut.axis, cut.start)
