"""Activations as straight-line vector code.

LLVM turns vector ``exp`` and ``erf`` into one libm call per lane, so ``exp`` is approximated here by range reduction
and a polynomial (relative error below 2e-7), and gelu by a polynomial alone (absolute error below 4e-7, and half a
unit in the last place). The coefficients are fits on Chebyshev nodes, made for this file: of least squares, or, by
reweighting these, of least maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import splat

# exp(r) = 1 + r + r^2 * polynomial(r) on |r| <= ln(2) / 2, highest power first.
_EXP = (0.00138131993, 0.00836941984, 0.0416684561, 0.166665148, 0.499999931)
# 2^r = polynomial(r) on |r| <= 1 / 2, relative error 1.5e-7.
_EXP2 = (0.00132669706, 0.00967545994, 0.0555074252, 0.240221217, 0.693146944, 1.00000012)
_LOG2E_HIGH, _LOG2E_LOW = 1.4426950216293335, 1.9259630e-08  # their sum is log2(e); the first is a float32
_EXP_LIMIT = 87.0  # both exp(-87) and exp(87) are normal float32 numbers
_ROUND = 1.5 * 2.0**23  # adding it rounds to an integer, which is then in the low bits
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln(2); the first has few bits, so n * it is exact


@dataclass(frozen=True)
class Tail:
    """What an activation ``x * cdf(x)`` lacks of ``relu(x)``: with u = |x|, ``u * cdf(-u)``.

    Here ``cdf(-u) = ((limit - u) * polynomial(u)) ** (2 ** squarings)`` up to the limit and 0 beyond. Such a root of
    the flank of a bell is so smooth that few terms do, and nothing has to be divided.

    Attributes:
        limit: from where on the activation is relu.
        coefficients: of the polynomial, highest power first.
        squarings: how often to square the product.
    """

    limit: float
    coefficients: tuple[float, ...]
    squarings: int


# The maximum of |x| * error is 1.6e-7.
GELU = Tail(
    5.7,
    (3.23217705e-06, -3.73894509e-05, 7.81097042e-05, 0.000532499689,
     -0.000852831698, -0.00942123029, -0.00354678812, 0.147525728),
    squarings=2,
)  # fmt: skip
# 2.7e-7
GELU_TANH = Tail(
    5.6,
    (3.53158021e-06, -2.61172027e-05, 5.61295456e-05, 0.000138070085,
     -0.000715058355, -0.00339285214, 0.0129089905, 0.163750693),
    squarings=3,
)  # fmt: skip


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
    # Nothing further to the left than exp goes: there the product of the two would grow again.
    x = T.Bind(_at_least(x, -_EXP_LIMIT, lanes))
    return x / _one_plus_exp(x, -1.0, lanes)


def _tanh(x, lanes):
    return splat(1.0, lanes) - splat(2.0, lanes) / _one_plus_exp(x, 2.0, lanes)


def _gelu(x, lanes):
    return _relu_less(GELU, x, lanes)


def _gelu_tanh(x, lanes):
    return _relu_less(GELU_TANH, x, lanes)


def _relu_less(tail: Tail, x, lanes):
    """Return ``relu(x)`` less the tail; at minus infinity that is the limit, 0, where PyTorch has NaN."""
    distance = T.Bind(_at_most(T.Bind(T.fabs(x)), tail.limit, lanes))
    power = T.Bind((splat(tail.limit, lanes) - distance) * _polynomial(tail.coefficients, distance, lanes))
    for _ in range(tail.squarings):
        power = T.Bind(power * power)
    return _relu(x, lanes) - distance * power


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
    limit = _EXP_LIMIT / abs(factor)
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
