"""Activations as straight-line vector code.

LLVM turns vector ``exp`` and ``erf`` into one libm call per lane, so both are approximated here: ``exp`` by range
reduction and a polynomial (relative error below 2e-7), ``erf`` by a rational function (absolute error below 5e-7 in
float32). The coefficients are least-squares fits on Chebyshev nodes, made for this file.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import splat

# exp(r) = 1 + r + r^2 * polynomial(r) on |r| <= ln(2) / 2, highest power first.
_EXP = (0.00138131993, 0.00836941984, 0.0416684561, 0.166665148, 0.499999931)
# 2^r = polynomial(r) on |r| <= 1 / 2, relative error 1.5e-7.
_EXP2 = (0.00132669706, 0.00967545994, 0.0555074252, 0.240221217, 0.693146944, 1.00000012)
_LOG2E_HIGH, _LOG2E_LOW = 1.4426950216293335, 1.9259630e-08  # their sum is log2(e); the first is a float32
_ROUND = 1.5 * 2.0**23  # adding it rounds to an integer, which is then in the low bits
# erf(x) = x * numerator(x^2) / denominator(x^2) on |x| <= 3.83, highest power first; beyond, erf is 1 in float32.
_ERF_LIMIT = 3.83
_ERF_NUMERATOR = (2.10706452e-06, 0.000287726357, 0.00373410762, 0.0526646735, 0.189211289, 1.12837906)
_ERF_DENOMINATOR = (3.88269688e-05, 0.00116145722, 0.0149036271, 0.113682816, 0.501016265, 1.0)
_ERF_ROUND_UP = 1.0 + 2.5e-7
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln(2); the first has few bits, so n * it is exact


def activate(name: str, value, lanes: int):
    """Emit activation ``name`` of ``value``, a float32 vector of ``lanes``, and return the resulting expression."""
    if name == "none":
        return value
    return _ACTIVATIONS[name](T.Bind(value), lanes)


def _relu(x, lanes):
    return _at_least(x, 0.0, lanes)


def _relu6(x, lanes):
    return _at_most(T.Bind(_at_least(x, 0.0, lanes)), 6.0, lanes)


def _at_least(x, low, lanes):
    # In this order: max(a, b) becomes "a > b ? a : b", which stays NaN where x is. Select would do the same, but LLVM
    # then takes ten times as long over an unrolled tile.
    return T.max(splat(low, lanes), x)


def _at_most(x, high, lanes):
    return T.min(splat(high, lanes), x)


def _hardswish(x, lanes):
    return x * _relu6(T.Bind(x + splat(3.0, lanes)), lanes) * splat(1.0 / 6.0, lanes)


def _sigmoid(x, lanes):
    return splat(1.0, lanes) / _one_plus_exp(x, -1.0, lanes)


def _silu(x, lanes):
    return x / _one_plus_exp(x, -1.0, lanes)


def _tanh(x, lanes):
    return splat(1.0, lanes) - splat(2.0, lanes) / _one_plus_exp(x, 2.0, lanes)


def _gelu(x, lanes):
    half = x * splat(0.5, lanes)
    return half + half * _erf(x * splat(math.sqrt(0.5), lanes), lanes)


def _gelu_tanh(x, lanes):
    # 0.5 x (1 + tanh(u)) = x sigmoid(2u)
    scale = 2.0 * math.sqrt(2.0 / math.pi)
    cubic = splat(scale * 0.044715, lanes) * x * x + splat(scale, lanes)
    return x * _sigmoid(T.Bind(x * cubic), lanes)


def _exp(x, lanes):
    # Clamped where float32 stays normal: the exponent is assembled from bits.
    x = T.Bind(_at_most(T.Bind(_at_least(T.Bind(x), -87.0, lanes)), 88.0, lanes))
    n = T.Bind(T.floor(x * splat(1.0 / math.log(2.0), lanes) + splat(0.5, lanes)))
    r = T.Bind(x - n * splat(_LN2_HIGH, lanes) - n * splat(_LN2_LOW, lanes))
    tail = _polynomial(_EXP, r, lanes)
    exponent = T.shift_left(T.cast(n, _int_type(lanes)) + _int_splat(127, lanes), _int_splat(23, lanes))
    return (splat(1.0, lanes) + (r + r * r * tail)) * T.reinterpret(_float_type(lanes), exponent)


def _one_plus_exp(x, factor: float, lanes: int):
    """Return ``1 + exp(factor * x)`` in fewer steps than by ``_exp``: the sum of two terms hides a few last bits."""
    limit = 87.0 / abs(factor)
    x = T.Bind(_at_most(T.Bind(_at_least(T.Bind(x), -limit, lanes)), limit, lanes))
    rounded = T.Bind(x * splat(factor * _LOG2E_HIGH, lanes) + splat(_ROUND, lanes))
    bits = T.Bind(T.reinterpret(_int_type(lanes), rounded))
    # Through the bits, because TVM takes x + c - c for x.
    n = T.Bind(T.reinterpret(_float_type(lanes), bits) - splat(_ROUND, lanes))
    rest = T.Bind(x * splat(factor * _LOG2E_HIGH, lanes) - n)
    rest = T.Bind(rest + x * splat(factor * _LOG2E_LOW, lanes))
    exponent = T.shift_left(bits, _int_splat(23, lanes))
    scale = T.reinterpret(_float_type(lanes), exponent + _int_splat(127 << 23, lanes))
    return T.Bind(_polynomial(_EXP2, rest, lanes) * scale + splat(1.0, lanes))


def _erf(x, lanes):
    x = T.Bind(_at_most(T.Bind(_at_least(T.Bind(x), -_ERF_LIMIT, lanes)), _ERF_LIMIT, lanes))
    square = T.Bind(x * x)
    ratio = x * _polynomial(_ERF_NUMERATOR, square, lanes) / _polynomial(_ERF_DENOMINATOR, square, lanes)
    # Rounded up a little and cut off at 1, so that gelu is exactly 0 far to the left.
    ratio = T.Bind(ratio * splat(_ERF_ROUND_UP, lanes))
    return _at_most(T.Bind(_at_least(ratio, -1.0, lanes)), 1.0, lanes)


def _polynomial(coefficients, x, lanes):
    total = splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        total = total * x + splat(coefficient, lanes)
    return total


def _int_splat(value: int, lanes: int):
    constant = T.int32(value)
    return constant if lanes == 1 else tirx.Broadcast(constant, lanes)


def _int_type(lanes: int) -> str:
    return "int32" if lanes == 1 else f"int32x{lanes}"


def _float_type(lanes: int) -> str:
    return "float32" if lanes == 1 else f"float32x{lanes}"


_ACTIVATIONS = {
    "relu": _relu,
    "relu6": _relu6,
    "hardswish": _hardswish,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
