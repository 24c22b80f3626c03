"""Ops that join axes and cut them up: cat, split, roll, repeat, pad. They make and read direct sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.axes import Axis, direct_sum, pin_of, product, size_from, size_of
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
            context.pin(axes[d], "padded")
            axes[d] = context.solver.pinned(sizes[d], "padded")
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
