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
absolute negative fix arccos arccosh arcsin arcsinh arctan arctanh sgn signbit deg2rad rad2deg digamma lgamma mvlgamma
polygamma i0 isposinf isneginf isreal angle conj conj_physical resolve_conj resolve_neg real imag
frexp fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask renorm
_cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short chalf
_autocast_to_full_precision _autocast_to_reduced_precision
""".split()

BINARY = """
add sub rsub mul div multiply subtract divide true_divide floor_divide remainder fmod pow float_power maximum minimum
fmax fmin atan2 lerp addcmul addcdiv where masked_fill logical_and logical_or logical_xor bitwise_and
bitwise_or bitwise_xor __and__ __or__ __xor__ __lshift__ __rshift__ copysign hypot xlogy
arctan2 greater greater_equal less less_equal not_equal isclose ldexp logaddexp logaddexp2 nextafter heaviside gcd lcm
bitwise_left_shift bitwise_right_shift igamma igammac polar complex
""".split()

TRANSPARENT = """
clone contiguous alias detach lift lift_fresh lift_fresh_copy _to_copy copy fill zero zeros_like ones_like
full_like empty_like rand_like randn_like randint_like dropout feature_dropout alpha_dropout
feature_alpha_dropout native_dropout bernoulli uniform exponential cauchy geometric log_normal normal_functional random
pin_memory
""".split()

SPECIAL = """
airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc gammaincc
gammaln i0 i0e i1 i1e log1p log_ndtr logit modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1
multigammaln ndtr ndtri polygamma psi round scaled_modified_bessel_k0 scaled_modified_bessel_k1 sinc
spherical_bessel_j0 xlog1py xlogy zeta chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v
chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p
shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v
shifted_chebyshev_polynomial_w
""".split()


@rule(*UNARY, *BINARY, *TRANSPARENT, *(f"special_{name}" for name in SPECIAL))
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


POSITIONS = """
scalar_tensor arange range linspace logspace eye randint randperm hann_window hamming_window blackman_window
bartlett_window kaiser_window tril_indices triu_indices fft_fftfreq fft_rfftfreq
""".split()


@rule(*POSITIONS)
def positions(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """A tensor whose values depend on their position: every axis is pinned."""
    return context.constant(node.meta["val"], "values depend on their position")


@rule("normal")
def normal(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... , ... -> ... (means and deviations broadcast; of given sizes, every axis is pinned)"""
    if not tensor_nodes(arguments.values()):
        return context.constant(node.meta["val"], "random numbers of a given size")
    return element_wise(context, node, arguments)


@rule("broadcast_tensors")
def broadcast_tensors(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... , ... -> ..., ... (broadcast)"""
    value = node.meta["val"]
    operands = [context.axes(operand) for operand in tensor_nodes(arguments.values())]
    result = context.broadcast(operands, len(value[0].shape))
    return [result for _ in value]


@rule("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask")
def fake_quantize(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... c ..., c, c -> ... c ... (a scale and a zero point for each channel)"""
    axes = context.axes(arguments["self"])
    for name in ("scale", "zero_point"):
        context.unify(axes[arguments["axis"]], context.axes(arguments[name])[0])
    return [axes, axes] if isinstance(node.meta["val"], (tuple, list)) else axes


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
