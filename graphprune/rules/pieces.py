"""Ops that join and cut axes: cat, split, slice, select, pad, roll, repeat. They make and read direct sums."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.axes import Axis, Size, direct_sum, pin_of, product, size_from, size_of
from graphprune.graph import op_name
from graphprune.rules.context import CannotInfer, Inference, Resizing, Typed, shape_of
from graphprune.rules.registry import Arguments, resize, rule

SPLITS = """
split split_with_sizes chunk tensor_split split_with_sizes_copy unsafe_split unsafe_split_with_sizes unsafe_chunk hsplit
vsplit dsplit
""".split()


@rule("cat", "concat", "concatenate")
def cat(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n a S, n b S, ... -> n (a + b + ...) S"""
    tensors = [context.axes(tensor) for tensor in arguments["tensors"] if shape_of(tensor.meta["val"]) != [0]]
    first, *others = tensors
    d = arguments.get("dim", 0) % len(first)
    for axes in others:
        for i, (a, b) in enumerate(zip(first, axes, strict=True)):
            if i != d:
                context.unify(a, b)
    return [*first[:d], context.concatenate(axes[d] for axes in tensors), *first[d + 1 :]]


@rule("stack")
def stack(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... , ... -> K ... (the new axis is pinned)"""
    first, *others = [context.axes(tensor) for tensor in arguments["tensors"]]
    d = arguments.get("dim", 0) % (len(first) + 1)
    for axes in others:
        for a, b in zip(first, axes, strict=True):
            context.unify(a, b)
    return [*first[:d], context.solver.pinned(len(others) + 1, "stacked tensors"), *first[d:]]


def _split_axis(node: fx.Node, arguments: Arguments, rank: int) -> int:
    """Return which axis a split cuts: horizontal, vertical and depth splits imply it."""
    implied = {"hsplit": min(1, rank - 1), "vsplit": 0, "dsplit": 2}.get(op_name(node))
    return arguments["dim"] % rank if implied is None else implied


@rule(*SPLITS)
def split(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + b + ...) -> a, b, ..."""
    axes = context.axes(arguments["self"])
    d = _split_axis(node, arguments, len(axes))
    rest = axes[d]
    outputs: list[list[Axis]] = []
    sizes = [size_from(value.shape[d]) for value in node.meta["val"]]
    if not all(isinstance(size, int) for size in sizes):
        context.pin(rest, "split at dynamic positions")
        return [[*axes[:d], context.solver.pinned(s, "split at dynamic positions"), *axes[d + 1 :]] for s in sizes]
    for size in sizes[:-1]:
        assert isinstance(size, int)
        piece, rest = context.solver.split(rest, size)
        outputs.append([*axes[:d], piece, *axes[d + 1 :]])
    return [*outputs, [*axes[:d], rest, *axes[d + 1 :]]]


@resize(*SPLITS)
def resize_split(resizing: Resizing, node: fx.Node, arguments: Arguments) -> Any:
    operand, outputs = arguments["self"], resizing.types[node]
    d = _split_axis(node, arguments, len(resizing.axes(operand)))
    pieces = [axes[d] for axes in outputs]  # type: ignore[index]
    if all(resizing.count(piece) == size_of(piece) for piece in pieces):
        return None
    arguments.clear()
    arguments.update(self=operand, split_sizes=[resizing.count(piece) for piece in pieces], dim=d)
    return torch.ops.aten.split_with_sizes.default


@rule("unbind")
def unbind(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """K ... -> ..., ..., ... (the axis that is taken apart is pinned)"""
    axes = context.axes(arguments["self"])
    d = arguments["dim"] % len(axes)
    context.pin(axes[d], "taken apart by unbind")
    return [axes[:d] + axes[d + 1 :] for _ in node.meta["val"]]


@rule("python::getitem")
def getitem(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """One of the results of an op that returns several"""
    return list(context.types[arguments["0"]][arguments["1"]])  # type: ignore[arg-type]


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
    if not all(isinstance(value, int) for value in (size, start, stop)):
        return _pinned_cut(context, axes, d, new_size, "sliced at a dynamic position")
    start, stop, step = slice(start, stop, step).indices(size)  # type: ignore[arg-type]
    assert isinstance(size, int)
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


@rule("roll")
def roll(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """(a + b) -> (b + a)"""
    axes = context.axes(arguments["self"])
    if not arguments["dims"]:
        context.pin_all(axes, "rolled as a flat tensor")
        return axes
    tails: list[Axis | None] = []
    for shift, dim in zip(arguments["shifts"], arguments["dims"], strict=True):
        size = size_of(axes[dim])
        if pin_of(axes[dim]) is not None or not isinstance(size, int) or not isinstance(shift, int):
            context.pin(axes[dim], "rolled")
            tails.append(None)
            continue
        head, tail = context.solver.split(axes[dim], size - shift % size)
        axes[dim] = direct_sum([tail, head])
        tails.append(tail)
    context.notes[node.name] = tails
    return axes


@resize("roll")
def resize_roll(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    tails = resizing.notes.get(node.name, [])
    arguments["shifts"] = [
        shift if tail is None else resizing.count(tail)
        for shift, tail in zip(arguments["shifts"], tails or [None] * len(arguments["shifts"]), strict=True)
    ]


@rule("repeat", "tile")
def repeat(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """x -> (r x), r a free axis"""
    name = "repeats" if "repeats" in arguments else "dims"
    repeats = list(arguments[name])
    axes = context.axes(arguments["self"])
    repeats = [1] * (len(axes) - len(repeats)) + repeats
    axes = [context.solver.leaf(1)] * (len(repeats) - len(axes)) + axes
    factors: list[Axis | None] = []
    result: list[Axis] = []
    for axis, count, size in zip(axes, repeats, shape_of(node.meta["val"]), strict=True):
        if isinstance(count, int) and count == 1:
            factors.append(None)
            result.append(axis)
        elif isinstance(count, int):
            factors.append(context.solver.leaf(count))
            result.append(product([factors[-1], axis]))  # type: ignore[list-item]
        else:
            factors.append(None)
            context.pin(axis, "repeated a dynamic number of times")
            result.append(context.solver.pinned(size, "repeated a dynamic number of times"))
    context.notes[node.name] = factors
    return result


@resize("repeat", "tile")
def resize_repeat(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    name = "repeats" if "repeats" in arguments else "dims"
    factors = resizing.notes[node.name][-len(arguments[name]) :]
    arguments[name] = [
        count if factor is None else resizing.count(factor)
        for count, factor in zip(arguments[name], factors, strict=True)
    ]


@rule("repeat_interleave")
def repeat_interleave(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """x -> (x r), r a free axis"""
    if not isinstance(arguments.get("repeats"), int) or arguments.get("dim") is None:
        raise CannotInfer("repeat_interleave with a tensor of counts, or of a flattened tensor")
    axes = context.axes(arguments["self"])
    factor = context.solver.leaf(arguments["repeats"])
    context.notes[node.name] = factor
    axes[arguments["dim"]] = product([axes[arguments["dim"]], factor])
    return axes


@resize("repeat_interleave")
def resize_repeat_interleave(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    factor = resizing.notes.get(node.name)
    if factor is not None:
        arguments["repeats"] = resizing.count(factor)
        if arguments.get("output_size") is not None:
            arguments["output_size"] = None


@rule("pad", "constant_pad_nd", "_pad_enum", "_pad_circular")
def pad(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """x -> (l + x + r), l and r free axes"""
    axes = context.axes(arguments["self"])
    sizes, amounts = shape_of(node.meta["val"]), arguments["pad"]
    ends: dict[int, tuple[Axis, Axis]] = {}
    for k in range(len(amounts) // 2):
        left, right, d = amounts[2 * k], amounts[2 * k + 1], len(axes) - 1 - k
        if left == 0 and right == 0:
            continue
        constant = not op_name(node).startswith("_pad") and arguments.get("mode", "constant") == "constant"
        plain = constant and isinstance(left, int) and isinstance(right, int)
        if not plain or left < 0 or right < 0 or pin_of(axes[d]) is not None:
            _pinned_cut(context, axes, d, sizes[d], "padded")
        else:
            ends[k] = Axis(left), Axis(right)
            axes[d] = context.concatenate([ends[k][0], axes[d], ends[k][1]])
    context.notes[node.name] = ends
    return axes


@resize("pad", "constant_pad_nd", "_pad_enum", "_pad_circular")
def resize_pad(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    amounts = list(arguments["pad"])
    for k, (left, right) in resizing.notes.get(node.name, {}).items():
        amounts[2 * k], amounts[2 * k + 1] = resizing.count(left), resizing.count(right)
    arguments["pad"] = amounts
