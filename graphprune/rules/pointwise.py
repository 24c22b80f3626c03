"""Element-wise ops: aligned axes are one axis."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.rules.context import Inference, Resizing, Typed, is_one, shape_of, tensor_nodes
from graphprune.rules.registry import Arguments, resize, rule

UNARY = """
abs neg sign positive reciprocal round floor ceil trunc frac square sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin
cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv sigmoid logit sinc relu relu6 gelu silu mish
hardtanh hardswish hardsigmoid leaky_relu elu celu selu softplus softshrink hardshrink threshold log_sigmoid rrelu
isnan isinf isfinite nan_to_num logical_not bitwise_not clamp clamp_min clamp_max clip
""".split()

BINARY = """
add sub rsub mul div multiply subtract divide true_divide floor_divide remainder fmod pow float_power maximum minimum
fmax fmin atan2 lerp addcmul addcdiv where masked_fill eq ne lt gt le ge logical_and logical_or logical_xor bitwise_and
bitwise_or bitwise_xor __and__ __or__ __xor__ __lshift__ __rshift__ copysign hypot xlogy
""".split()

TRANSPARENT = """
clone contiguous alias detach lift lift_fresh lift_fresh_copy _to_copy copy fill zero zeros_like ones_like
full_like empty_like rand_like randn_like dropout feature_dropout alpha_dropout
feature_alpha_dropout native_dropout bernoulli
""".split()


@rule(*UNARY, *BINARY, *TRANSPARENT)
def element_wise(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... , ... -> ... (broadcast)"""
    value = node.meta["val"]
    operands = [context.axes(operand) for operand in tensor_nodes(arguments.values())]
    if isinstance(value, (tuple, list)):
        result = context.broadcast(operands, len(value[0].shape))
        return [result for _ in value]
    return context.broadcast(operands, len(value.shape))


@rule("prelu")
def prelu(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c ..., c -> n c ... (one slope for each channel, or one for all)"""
    axes, (slope,) = context.axes(arguments["self"]), context.axes(arguments["weight"])
    if not is_one(slope):
        context.unify(axes[1], slope)
    return axes


@rule("to", "type_as")
def converted(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... -> ... (a second tensor gives its type and device, not its axes)"""
    return context.axes(arguments["self"])


@rule("expand", "expand_as", "broadcast_to")
def expand(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Axes of size 1 become free axes of the new size; the others stay."""
    sizes = shape_of(node.meta["val"])
    axes = context.axes(arguments["self"])
    old: list[Any] = [None] * (len(sizes) - len(axes)) + axes
    result = [
        axis if axis is not None and (not is_one(axis) or size == 1) else context.solver.leaf(size)
        for axis, size in zip(old, sizes, strict=True)
    ]
    if arguments.get("other") is not None:
        context.broadcast([result, context.axes(arguments["other"])], len(result))
    return result


@resize("expand", "broadcast_to")
def resize_expand(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    axes = resizing.axes(node)
    arguments["size"] = [
        value if value == -1 else resizing.resized(value, axis)
        for value, axis in zip(arguments["size"], axes, strict=True)
    ]


@rule("full", "zeros", "ones", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty")
def filled(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """A tensor of equal or random values: every axis is free."""
    return context.fresh(node.meta["val"])


@resize("full", "zeros", "ones", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty")
def resize_filled(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["size"] = resizing.counts(arguments["size"], resizing.axes(node))


@rule("scalar_tensor", "arange", "linspace", "logspace", "eye", "randint", "randperm", "hann_window", "hamming_window")
def positions(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """A tensor whose values depend on their position: every axis is pinned."""
    return context.constant(node.meta["val"], "values depend on their position")


@rule("glu")
def glu(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... (c + c) ... -> ... c ..."""
    axes = context.axes(arguments["self"])
    d = arguments["dim"] % len(axes)
    (size,) = shape_of(node.meta["val"])[d : d + 1]
    assert isinstance(size, int)
    left, right = context.solver.split(axes[d], size)
    context.unify(left, right)
    axes[d] = left
    return axes
