"""Element-wise ops."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case, overload, pieces, whole_numbers

_UNARY = """
abs neg sign positive round floor ceil trunc frac square sqrt exp exp2 expm1 log1p
sin cos tan asin acos atan sinh cosh tanh asinh atanh erf erfc erfinv sigmoid sinc relu relu6 gelu silu mish
hardtanh hardswish hardsigmoid leaky_relu elu celu selu softplus softshrink hardshrink log_sigmoid
rrelu isnan isinf isfinite nan_to_num logical_not clone contiguous alias detach lift lift_fresh lift_fresh_copy
zero zeros_like ones_like
""".split()
_POLES = "reciprocal rsqrt log log2 log10 logit".split()  # infinite at the zeros of a zeroed parameter
case("unary", lambda x: [overload(name)(x) for name in _UNARY], (4, 3), free=7)
case("unary_with_poles", lambda x: [overload(name)(x) for name in _POLES], (4, 3), free=7, zeros_agree=False)
case("acosh", aten.acosh.default, (4, 3), free=7, offset=1.0, zeros_agree=False)
_RANDOM = "empty_like rand_like randn_like bernoulli".split()
case("random_unary", lambda x: [overload(name)(x) for name in _RANDOM], (4, 3), free=7, random=True)
case("threshold", lambda x: aten.threshold.default(x, 0.5, 0.25), (4, 3), free=7)
case("clamp", lambda x: aten.clamp.default(x, 0.3, 0.6), (4, 3), free=7)
case("clip", lambda x: aten.clip.default(x, 0.3, 0.6), (4, 3), free=7)
case("clamp_min", lambda x: aten.clamp_min.default(x, 0.5), (4, 3), free=7)
case("clamp_max", lambda x: aten.clamp_max.default(x, 0.5), (4, 3), free=7)
case("clamp_by_tensor", aten.clamp_min.Tensor, (4, 3), (3,), free=7)
case("bitwise_not", aten.bitwise_not.default, whole_numbers(4, 3), free=7)
case("fill", lambda x: aten.fill.Scalar(x, 2.0), (4, 3), free=7)
case("full_like", lambda x: aten.full_like.default(x, 2.0), (4, 3), free=7)
case("to", lambda x: aten.to.dtype(x, torch.float32), (4, 3), free=7)
case("to_other", aten.to.other, (4, 3), (1, 5, 2), free=14)
case("type_as", aten.type_as.default, (4, 3), (5, 2), free=14)
case("type_as_of_more_axes", aten.type_as.default, (1, 3), (7, 2, 3, 5), free=20)
case("_to_copy", lambda x: aten._to_copy.default(x, dtype=torch.float32), (4, 3), free=7)
for _name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
    case(_name, lambda x, op=overload(_name): op(x, 0.5, False), (4, 3), free=7)
case("native_dropout", lambda x: aten.native_dropout.default(x, 0.5, False)[0], (4, 3), free=7)

_BINARY = """
add.Tensor sub.Tensor rsub.Tensor mul.Tensor multiply.Tensor subtract.Tensor pow.Tensor_Tensor
float_power.Tensor_Tensor maximum minimum fmax fmin atan2 copysign.Tensor hypot xlogy.Tensor eq.Tensor ne.Tensor
lt.Tensor gt.Tensor le.Tensor ge.Tensor logical_and logical_or logical_xor copy
""".split()
_DIVISIONS = "div.Tensor divide.Tensor true_divide.Tensor floor_divide remainder.Tensor fmod.Tensor".split()
case("binary", lambda x, y: [overload(name)(x, y) for name in _BINARY], (2, 4, 3), (4, 1), free=9)
case(
    "divisions", lambda x, y: [overload(name)(x, y) for name in _DIVISIONS], (2, 4, 3), (4, 1), free=9,
    zeros_agree=False,
)  # fmt: skip
case("add_scalar", lambda x: aten.add.Scalar(x, 2), (4, 3), free=7)
case("add_equal", aten.add.Tensor, (4, 3), (4, 3), free=7)
case("max.other", aten.max.other, (4, 3), (3,), free=7)
case("min.other", aten.min.other, (4, 3), (3,), free=7)
_INTEGER = """
bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor __and__.Tensor __or__.Tensor __xor__.Tensor __lshift__.Tensor
__rshift__.Tensor
""".split()
case("integer", lambda x, y: [overload(name)(x, y) for name in _INTEGER], whole_numbers(4, 3), whole_numbers(3), free=7)
case("lerp", aten.lerp.Tensor, (4, 3), (3,), (4, 1), free=7)
case("addcmul", aten.addcmul.default, (4, 3), (3,), (4, 1), free=7)
case("addcdiv", aten.addcdiv.default, (4, 3), (3,), (4, 1), free=7, zeros_agree=False)
case("where", lambda c, x, y: aten.where.self(aten.gt.Scalar(c, 0.5), x, y), (4, 3), (4, 1), (3,), free=7)
case("masked_fill", lambda x, c: aten.masked_fill.Scalar(x, aten.gt.Scalar(c, 0.5), 3.0), (4, 3), (3,), free=7)
case("prelu", aten.prelu.default, (2, 4, 3), (4,), free=9)
case("prelu_shared", aten.prelu.default, (2, 4, 3), (1,), free=9)
case("glu", lambda x: aten.glu.default(x, 1), (2, 8, 3), free=9)

_FURTHER_UNARY = """
absolute negative fix arccos arcsin arcsinh arctan sgn signbit deg2rad rad2deg isposinf isneginf isreal angle conj
conj_physical resolve_conj resolve_neg real _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Int _cast_Long
_cast_Short special_erf special_erfc special_erfinv special_exp2 special_expit special_expm1 special_i0 special_i0e
special_i1 special_i1e special_log1p special_log_ndtr special_ndtr special_round special_sinc special_airy_ai
special_bessel_j0 special_bessel_j1 special_erfcx special_modified_bessel_i0 special_modified_bessel_i1
special_spherical_bessel_j0 i0 special_entr
""".split()
case("further_unary", lambda x: [overload(name)(x) for name in _FURTHER_UNARY], (4, 3), free=7)
_FURTHER_POLES = """
digamma lgamma special_digamma special_gammaln special_psi special_logit special_ndtri special_bessel_y0
special_bessel_y1 special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0
special_scaled_modified_bessel_k1 arctanh
""".split()
case("further_poles", lambda x: [overload(name)(x) for name in _FURTHER_POLES], (4, 3), free=7, zeros_agree=False)
case("arccosh", aten.arccosh.default, (4, 3), free=7, offset=1.0, zeros_agree=False)
case("frexp", lambda x: pieces(aten.frexp.Tensor(x), 2), (4, 3), free=7)
case("mvlgamma", lambda x: aten.mvlgamma.default(x, 2), (4, 3), free=7, offset=1.0, zeros_agree=False)
case("special_multigammaln", lambda x: aten.special_multigammaln.default(x, 2), (4, 3), free=7, offset=1.0,
     zeros_agree=False)  # fmt: skip
for _name in ("polygamma", "special_polygamma"):
    case(_name, lambda x, op=overload(_name): op(1, x), (4, 3), free=7, zeros_agree=False)
case("renorm", lambda x: aten.renorm.default(x, 2, 1, 0.5), (4, 3, 2), free=9)

case("_cast_Half", aten._cast_Half.default, (4, 3), free=7)
case("chalf", aten.chalf.default, (4, 3), free=7, complex_results=True)
case("_autocast_to_full_precision", lambda x: aten._autocast_to_full_precision.default(x, False, False), (4, 3), free=7)
case("_autocast_to_reduced_precision",
     lambda x: aten._autocast_to_reduced_precision.default(x, False, False, torch.half, torch.bfloat16), (4, 3),
     free=7)  # fmt: skip
_FURTHER_RANDOM = "uniform exponential cauchy geometric log_normal normal_functional random randint_like".split()
_ODDS = {"geometric": (0.5,), "randint_like": (5,)}
case("further_random", lambda x: [overload(name)(x, *_ODDS.get(name, ())) for name in _FURTHER_RANDOM], (4, 3), free=7,
     random=True)  # fmt: skip
case("normal", lambda x, y: aten.normal.Tensor_Tensor(x, y), (4, 3), (3,), free=7, random=True)

_FURTHER_BINARY = """
arctan2 greater.Tensor greater_equal.Tensor less.Tensor less_equal.Tensor not_equal.Tensor isclose ldexp.Tensor
logaddexp logaddexp2 nextafter heaviside special_xlog1py special_xlogy
special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he special_laguerre_polynomial_l
special_legendre_polynomial_p special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u
special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w
""".split()
case("further_binary", lambda x, y: [overload(name)(x, y) for name in _FURTHER_BINARY], (2, 4, 3), (4, 1), free=9)
_GAMMAS = "igamma igammac special_gammainc special_gammaincc special_zeta".split()
case("gammas", lambda x, y: [overload(name)(x, y) for name in _GAMMAS], (2, 4, 3), (4, 1), free=9, offset=1.0,
     zeros_agree=False)  # fmt: skip
_FURTHER_INTEGER = "bitwise_left_shift.Tensor bitwise_right_shift.Tensor gcd lcm".split()
case("further_integer", lambda x, y: [overload(name)(x, y) for name in _FURTHER_INTEGER], whole_numbers(4, 3),
     whole_numbers(3), free=7)  # fmt: skip
case("broadcast_tensors", lambda x, y: pieces(aten.broadcast_tensors.default([x, y]), 2), (2, 4, 3), (4, 1), free=9)
case("fake_quantize_per_tensor_affine",
     lambda x, s, z: aten.fake_quantize_per_tensor_affine.tensor_qparams(x, s, z, -8, 8), (4, 3),
     torch.tensor(0.1), torch.tensor(0), free=7)  # fmt: skip
case(
    "fake_quantize_per_tensor_affine_cachemask",
    lambda x: pieces(aten.fake_quantize_per_tensor_affine_cachemask.default(x, 0.1, 0, -8, 8), 2),
    (4, 3),
    free=7,
)
_ZERO_POINTS = torch.zeros(3, dtype=torch.int32)
for _name in ("fake_quantize_per_channel_affine", "fake_quantize_per_channel_affine_cachemask"):
    case(_name, lambda x, s, z, op=overload(_name): op(
        aten._to_copy.default(x, dtype=torch.float32), aten._to_copy.default(s, dtype=torch.float32), z, 1, -8, 8
    )[0] if "cachemask" in str(op) else op(
        aten._to_copy.default(x, dtype=torch.float32), aten._to_copy.default(s, dtype=torch.float32), z, 1, -8, 8
    ), (4, 3, 2), (3,), _ZERO_POINTS, free=9, zeros_agree=False)  # fmt: skip
