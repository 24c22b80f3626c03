"""Legalises Relax's transcendental ops to arithmetic that LLVM can vectorise.

LLVM turns a loop over ``exp``, ``erf`` or ``tanh`` into one libm call per element. Here they become polynomials, with
the coefficients of ``kernels/activations.py``, for float32; other dtypes keep TVM's own legalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.tirx import const

from graphprune.backend.kernels import activations as coefficients
from graphprune.backend.kernels.activations import GELU, GELU_TANH, Tail

# erf(x) = x * numerator(x^2) / denominator(x^2) on |x| <= 3.83, highest power first; beyond, erf is 1 in float32. The
# absolute error is below 5e-7.
_ERF_LIMIT = 3.83
_ERF_NUMERATOR = (2.10706452e-06, 0.000287726357, 0.00373410762, 0.0526646735, 0.189211289, 1.12837906)
_ERF_DENOMINATOR = (3.88269688e-05, 0.00116145722, 0.0149036271, 0.113682816, 0.501016265, 1.0)

Scalar = Callable[[Any], Any]

# log(1 + f) = f - f^2 / 2 + f^3 * polynomial(f) on sqrt(1 / 2) <= 1 + f <= sqrt(2), relative error 8e-10 before
# rounding, highest power first; a weighted least-squares fit on Chebyshev nodes, made for this file.
_LOG = (
    0.0674653261, -0.116756235, 0.118881966, -0.124055957, 0.142195483, -0.166679953, 0.200021189, -0.250000096,
    0.333333126,
)  # fmt: skip
_SQRT_HALF_BITS = 0x3F3504F3
_LEAST_NORMAL = 2.0**-126


def legalize_map() -> dict[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr]]:
    """Return the customised legalisations, by Relax op name, for ``relax.transform.LegalizeOps``."""
    functions: dict[str, tuple[str, Scalar]] = {
        "relax.exp": ("exp", _exp_to_infinity),
        "relax.erf": ("erf", _erf),
        "relax.log": ("log", _log),
        "relax.tanh": ("tanh", _tanh),
        "relax.sigmoid": ("sigmoid", _sigmoid),
        "relax.nn.relu": ("relu", _relu),
        "relax.nn.silu": ("silu", lambda x: _let(tirx.max(_f(-coefficients._EXP_LIMIT), x), lambda x: x * _sigmoid(x))),
        "relax.nn.gelu": ("gelu", lambda x: _relu_less(GELU, x)),
        "relax.nn.gelu_tanh": ("gelu_tanh", lambda x: _relu_less(GELU_TANH, x)),
    }
    table = {op: _elementwise(op, hint, function) for op, (hint, function) in functions.items()}
    return table | {"relax.power": _power, "relax.clip": _clip, "relax.nn.softmax": _softmax}


def _default(op: str, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return tvm.ir.Op.get(op).get_attr("FLegalize")(builder, call)


def _is_float32(call: relax.Call) -> bool:
    return str(call.args[0].ty.dtype) == "float32"


def _elementwise(op: str, hint: str, function: Scalar) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if not _is_float32(call):
            return _default(op, builder, call)
        return builder.call_te(_map(function, hint), call.args[0], primfunc_name_hint=hint)

    return legalize


def _map(function: Scalar, name: str) -> Callable[[te.Tensor], te.Tensor]:
    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *index: _let(x(*index), function), name=name)

    return compute


def _let(value: Any, body: Scalar) -> Any:
    """Return ``body(value)`` with ``value`` computed once."""
    variable = tirx.Var("v", "float32")
    return tirx.Let(variable, value, body(variable))


def _power(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    exponent = call.args[1]
    small = {2.0: lambda x: x * x, 3.0: lambda x: x * x * x, 0.5: tirx.sqrt, -0.5: lambda x: _f(1.0) / tirx.sqrt(x)}
    if _is_float32(call) and isinstance(exponent, tvm.ir.GenericConst) and exponent.ty.ndim == 0:
        function = small.get(float(exponent.value.numpy()))
        if function is not None:
            return builder.call_te(_map(function, "power"), call.args[0], primfunc_name_hint="power")
    return _default("relax.power", builder, call)


def _clip(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    low, high = (getattr(bound, "value", None) for bound in call.args[1:])
    if not _is_float32(call) or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return _default("relax.clip", builder, call)
    return builder.call_te(_map(lambda x: _clamp(x, low, high), "clip"), call.args[0], primfunc_name_hint="clip")


def _softmax(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Spell softmax over any axis as its four steps, each of which the generic schedule handles."""
    attributes: Any = call.attrs
    x, axis = call.args[0], int(attributes.axis)
    highest = builder.emit(relax.op.max(x, axis, keepdims=True))
    weights = builder.emit(relax.op.exp(relax.op.subtract(x, highest)))
    total = builder.emit(relax.op.sum(weights, axis, keepdims=True))
    return relax.op.divide(weights, total)


def _f(value: float) -> Any:
    return const(value, "float32")


def _polynomial(values: tuple[float, ...], x: Any) -> Any:
    total: Any = _f(values[0])
    for value in values[1:]:
        total = total * x + _f(value)
    return total


def _relu(x: Any) -> Any:
    return tirx.max(_f(0.0), x)  # in this order it stays NaN where x is


def _clamp(x: Any, low: float, high: float) -> Any:
    """Return ``x`` limited to the interval; in this order of operands, what is not a number stays so."""
    return tirx.min(_f(high), tirx.max(_f(low), x))


def _exp_to_infinity(x: Any) -> Any:
    """Return ``exp(x)`` also where it is beyond what ``_exp`` can assemble: up to infinity."""
    large = x > _f(87.0)
    shift, factor = tirx.Select(large, _f(10.0), _f(0.0)), tirx.Select(large, _f(math.exp(10.0)), _f(1.0))
    return _exp(x - shift) * factor


def _exp(x: Any) -> Any:
    def reduced(clamped: Any) -> Any:
        return _let(tirx.floor(clamped * _f(1 / math.log(2)) + _f(0.5)), lambda n: with_power(clamped, n))

    def with_power(clamped: Any, n: Any) -> Any:
        rest = clamped - n * _f(coefficients._LN2_HIGH) - n * _f(coefficients._LN2_LOW)
        scale = tirx.reinterpret("float32", (n.astype("int32") + const(127, "int32")) << const(23, "int32"))
        return _let(rest, lambda r: (_f(1.0) + (r + r * r * _polynomial(coefficients._EXP, r))) * scale)

    return _let(_clamp(x, -87.0, 88.0), reduced)


def _log(x: Any) -> Any:
    small = x < _f(_LEAST_NORMAL)  # also zero and below, whose values are not used

    def split(bits: Any) -> Any:
        exponent = (bits - const(_SQRT_HALF_BITS, "int32")) >> const(23, "int32")
        fraction = tirx.reinterpret("float32", bits - (exponent << const(23, "int32"))) - _f(1.0)
        power = exponent.astype("float32") - tirx.Select(small, _f(23.0), _f(0.0))
        return _let(fraction, lambda f: _let(power, lambda n: combined(f, n)))

    def combined(f: Any, n: Any) -> Any:
        rest = n * _f(coefficients._LN2_LOW) - f * f * _f(0.5) + f * f * f * _polynomial(_LOG, f)
        return n * _f(coefficients._LN2_HIGH) + (f + rest)

    variable = tirx.Var("bits", "int32")
    scaled = tirx.Select(small, x * _f(2.0**23), x)
    value = tirx.Let(variable, tirx.reinterpret("int32", scaled), split(variable))
    other = tirx.Select(x > _f(0.0), x, _f(math.nan))  # infinity stays, less than zero gives NaN
    finite = tirx.And(x > _f(0.0), x < _f(math.inf))
    return tirx.Select(finite, value, tirx.Select(x.equal(_f(0.0)), _f(-math.inf), other))


def _erf(x: Any) -> Any:
    limit = _ERF_LIMIT

    def ratio(clamped: Any) -> Any:
        return _let(
            clamped * clamped,
            lambda square: clamped * _polynomial(_ERF_NUMERATOR, square) / _polynomial(_ERF_DENOMINATOR, square),
        )

    return _let(_clamp(x, -limit, limit), ratio)


def _sigmoid(x: Any) -> Any:
    return _f(1.0) / (_f(1.0) + _exp(-x))


def _tanh(x: Any) -> Any:
    return _f(1.0) - _f(2.0) / (_f(1.0) + _exp(x * _f(2.0)))


def _relu_less(tail: Tail, x: Any) -> Any:
    """Return ``relu(x)`` less the tail, as ``activations`` does."""

    def at(distance: Any) -> Any:
        return _let((_f(tail.limit) - distance) * _polynomial(tail.coefficients, distance), lambda r: less(distance, r))

    def less(distance: Any, power: Any, squarings: int = tail.squarings) -> Any:
        if squarings:
            return _let(power * power, lambda square: less(distance, square, squarings - 1))
        return _relu(x) - distance * power

    return _let(tirx.min(_f(tail.limit), tirx.abs(x)), at)
