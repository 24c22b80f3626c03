"""Convolutions: channels contract, groups are a factor; space stays unless the kernel is one position, or all."""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis, product, size_of
from graphprune.rules.context import Inference, Resizing, Typed, entry_at, is_one, shape_of
from graphprune.rules.registry import Arguments, resize, rule, rule_name

FORWARD = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "_convolution_mode")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@rule(*FORWARD, *TRANSPOSED)
def convolution(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g i) S, (g o) i K, (g o) -> n (g o) S' (transposed: weight (g i) o K); a kernel as wide as S contracts it"""
    weight = context.axes(arguments["weight"])
    rank = len(weight) - 2
    *batch, channels = context.axes(arguments["input"])[: -rank or None]
    space = context.axes(arguments["input"])[-rank:]
    transposed = "transpose" in rule_name(node) or bool(arguments.get("transposed"))
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
    """Type the spatial axes: a kernel of one position passes them, one of all positions contracts them."""
    result: list[Axis] = []
    sizes = shape_of(node.meta["val"])[-len(space) :]
    for d, (axis, kernel, size) in enumerate(zip(space, weight[2:], sizes, strict=True)):
        stride, padding = entry_at(arguments.get("stride"), d, 1), entry_at(arguments.get("padding"), d, 0)
        if is_one(kernel) and stride == 1 and padding in (0, "valid", "same") and not transposed:
            context.pin(kernel, "position in a convolution kernel")
            result.append(axis)
        elif size_of(kernel) == size_of(axis) and size == 1 and padding in (0, "valid") and not transposed:
            context.unify(axis, kernel)
            result.append(context.solver.pinned(1, "axis of size 1"))
        else:
            context.pin(kernel, "position in a convolution kernel")
            context.pin(axis, "spatial axis of a convolution")
            result.append(context.solver.pinned(size, "spatial axis of a convolution"))
    return result


@rule("torchvision::deform_conv2d")
def deformable_convolution(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g i) S, (g o) i K, n W S', n M S', (g o) -> n (g o) S' (offsets, their weights and space are pinned)"""
    weight, image = context.axes(arguments["weight"]), context.axes(arguments["input"])
    inputs, outputs = _channels(context, node, weight, arguments["groups"], transposed=False)
    context.unify(image[1], inputs)
    context.unify(context.axes(arguments["bias"])[0], outputs)
    context.pin_all([*weight[2:], *image[2:]], "position in a deformable convolution")
    if arguments["offset_groups"] > 1:
        context.pin(image[1], "grouped by offsets of a deformable convolution")
    for operand in (arguments["offset"], arguments["mask"]):
        batch, *others = context.axes(operand)
        context.unify(image[0], batch)
        context.pin_all(others, "position in a deformable convolution")
    space = shape_of(node.meta["val"])[2:]
    return [image[0], outputs, *(context.solver.pinned(s, "position in a deformable convolution") for s in space)]


@resize(*FORWARD, *TRANSPOSED, "torchvision::deform_conv2d")
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
