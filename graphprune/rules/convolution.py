"""Convolutions: channels contract, groups are a factor, space stays unless the kernel is pointwise."""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis, product
from graphprune.rules.context import Inference, Resizing, Typed, entry_at, is_one, shape_of
from graphprune.rules.registry import Arguments, resize, rule, rule_name

FORWARD = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "_convolution_mode")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@rule(*FORWARD, *TRANSPOSED)
def convolution(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g i) S, (g o) i K, (g o) -> n (g o) S' (transposed: weight (g i) o K); depthwise is i = 1"""
    weight = context.axes(arguments["weight"])
    rank = len(weight) - 2
    *batch, channels = context.axes(arguments["input"])[: -rank or None]
    space = context.axes(arguments["input"])[-rank:]
    transposed = "transpose" in rule_name(node) or bool(arguments.get("transposed"))
    context.pin_all(weight[2:], "position in a convolution kernel")
    inputs, outputs = _channels(context, node, weight, arguments["groups"], transposed)
    context.unify(channels, inputs)
    if arguments["bias"] is not None:
        context.unify(context.axes(arguments["bias"])[0], outputs)
    return [*batch, outputs, *_space(context, node, arguments, weight, space, transposed)]


def _channels(
    context: Inference, node: fx.Node, weight: list[Axis], groups: int, transposed: bool
) -> tuple[Axis, Axis]:
    """Return the types of the input and output channels."""
    if groups == 1:
        return (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    total = weight[0].size
    assert isinstance(total, int)
    group, inner = context.solver.leaf(groups), context.solver.leaf(total // groups)
    context.unify(weight[0], product([group, inner]))
    context.notes[node.name] = group
    first, second = product([group, inner]), product([group, weight[1]])
    return (first, second) if transposed else (second, first)


def _space(
    context: Inference, node: fx.Node, arguments: Arguments, weight: list[Axis], space: list[Axis], transposed: bool
) -> list[Axis]:
    """Type the spatial axes: those of a pointwise kernel pass through, others are pinned on both sides."""
    result: list[Axis] = []
    sizes = shape_of(node.meta["val"])[-len(space) :]
    for d, (axis, size) in enumerate(zip(space, sizes, strict=True)):
        stride, padding = entry_at(arguments.get("stride"), d, 1), entry_at(arguments.get("padding"), d, 0)
        if is_one(weight[2 + d]) and stride == 1 and padding in (0, "valid", "same") and not transposed:
            result.append(axis)
        else:
            context.pin(axis, "spatial axis of a convolution")
            result.append(context.solver.pinned(size, "spatial axis of a convolution"))
    return result


@resize(*FORWARD, *TRANSPOSED)
def resize_convolution(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    if node.name in resizing.notes:
        arguments["groups"] = resizing.count(resizing.notes[node.name])


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """o i K, o 1 1 -> o i K (a norm over the other axes; zeros do not disturb it)"""
    direction, scale = context.axes(arguments["v"]), context.axes(arguments["g"])
    for a, b in zip(direction, scale, strict=True):
        if not is_one(b):
            context.unify(a, b)
    return [direction, scale] if isinstance(node.meta["val"], (tuple, list)) else direction
