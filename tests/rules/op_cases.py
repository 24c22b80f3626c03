"""One small program for each registered op, for the oracle in ``test_rules_against_ops.py``.

A case calls the op on parameters (given as shapes) and buffers (given as tensors) and returns its results. The oracle
multiplies every result by a parameter of its shape, so that no axis is pinned by being a model output.
"""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
Operand = tuple[int, ...] | torch.Tensor


@dataclass(frozen=True)
class Case:
    """A call of an op.

    Attributes:
        name: for the test's id.
        function: calls the op and returns one result or a list of them.
        operands: shapes of parameters, and buffers.
        free: total size of the dimensions that stay free, the result's own weights not counted if nothing ties them.
        offset: added to all parameters, which are drawn from (0.1, 0.9).
        random: the op draws numbers, so only shapes can be compared.
        least: how many units of every dimension are kept at least.
        zeros_agree: zeroed parameters give the same results as removed ones (no statistics over what is removed).
    """

    name: str
    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    free: int
    offset: float = 0.0
    random: bool = False
    least: int = 1
    zeros_agree: bool = True


CASES: list[Case] = []


def case(name: str, function: Callable[..., Any], *operands: Operand, free: int, **options: Any) -> None:
    """Add a case; names are unique."""
    assert all(name != other.name for other in CASES), name
    CASES.append(Case(name, function, operands, free, **options))


def overload(name: str) -> Any:
    """Return the op called ``add.Tensor``, or the default overload of ``relu``."""
    base, _, variant = name.partition(".")
    return getattr(getattr(aten, base), variant or "default")


def pieces(results: Any, count: int) -> list[Any]:
    """Return the results of an op that returns several, also while tracing, when their number is not known."""
    return [results[i] for i in range(count)]


def create(x: Any, op: Any, *arguments: Any, **options: Any) -> Any:
    """Call an op without tensor arguments, as a node of its own where ``x`` is being traced."""
    if isinstance(x, fx.Proxy):
        return x.tracer.create_proxy("call_function", op, arguments, options)
    return op(*arguments, **options)


def whole_numbers(*shape: int, below: int = 5) -> torch.Tensor:
    """Return integers from 0 up to ``below``, the same ones every time."""
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------------ element-wise

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

# ------------------------------------------------------------------------------------------------------ creation

_DOUBLE = {"dtype": torch.float64}
case("full", lambda x: aten.add.Tensor(create(x, aten.full.default, [4, 3], 2.0, **_DOUBLE), x), (4, 3), free=7)
case("new_full", lambda x: aten.add.Tensor(aten.new_full.default(x, [4, 3], 2.0), x), (4, 3), free=7)
for _name in ("zeros", "ones"):
    case(
        _name, lambda x, op=overload(_name): aten.add.Tensor(create(x, op, [4, 3], **_DOUBLE), x), (4, 3), free=7
    )  # fmt: skip
for _name in ("new_zeros", "new_ones"):
    case(_name, lambda x, op=overload(_name): aten.add.Tensor(op(x, [4, 3]), x), (4, 3), free=7)
for _name in ("empty.memory_format", "rand", "randn"):
    case(
        _name, lambda x, op=overload(_name): aten.add.Tensor(create(x, op, [4, 3]), x), (4, 3), free=7, random=True
    )  # fmt: skip
case("new_empty", lambda x: aten.add.Tensor(aten.new_empty.default(x, [4, 3]), x), (4, 3), free=7, random=True)
case("scalar_tensor", lambda x: aten.add.Tensor(create(x, aten.scalar_tensor.default, 3.0), x), (4, 3), free=7)
_POSITIONS: dict[str, tuple[Any, ...]] = {
    "arange": (4,),
    "linspace": (0.0, 1.0, 4),
    "logspace": (0.0, 1.0, 4),
    "hann_window": (4,),
    "hamming_window": (4,),
    "randint": (5, [4]),
    "randperm": (4,),
}
for _name, _arguments in _POSITIONS.items():
    case(
        _name,
        lambda x, op=overload(_name), a=_arguments: aten.add.Tensor(x, create(x, op, *a)),
        (3, 4),
        free=3,
        random=_name.startswith("rand"),
    )
case("eye", lambda x: aten.add.Tensor(x, create(x, aten.eye.default, 4)), (3, 4, 4), free=3)

# ------------------------------------------------------------------------------------------------------ movement

case("view", lambda x: aten.view.default(x, [6, 2, 2, 5]), (6, 4, 5), free=15)
case("view_merge", lambda x: aten.view.default(x, [-1, 5]), (6, 4, 5), free=15)
case("view_unaligned", lambda x: aten.view.default(x, [4, 6, 5]), (6, 4, 5), free=2 + 2 + 5)
case("reshape", lambda x: aten.reshape.default(x, [2, 12, 1, 5]), (6, 4, 5), free=14)
case("_unsafe_view", lambda x: aten._unsafe_view.default(x, [24, 5]), (6, 4, 5), free=15)
case("flatten", lambda x: aten.flatten.using_ints(x, 1, 2), (6, 4, 5), free=15)
case("ravel", aten.ravel.default, (6, 4), free=10)
case("unflatten", lambda x: aten.unflatten.int(x, -1, [2, 3]), (4, 6), free=9)
case("view_as", aten.view_as.default, (6, 4), (6, 2, 2), free=10)
case("reshape_as", aten.reshape_as.default, (6, 4), (24,), free=10)
case("permute", lambda x: aten.permute.default(x, [2, 0, -2]), (2, 3, 4), free=9)
case("transpose", lambda x: aten.transpose.int(x, 0, -1), (2, 3, 4), free=9)
case("swapaxes", lambda x: aten.swapaxes.default(x, 0, -1), (2, 3, 4), free=9)
case("swapdims", lambda x: aten.swapdims.default(x, 0, -1), (2, 3, 4), free=9)
case("t", aten.t.default, (3, 4), free=7)
case("mT", aten.mT.default, (2, 3, 4), free=9)
case("mH", aten.mH.default, (2, 3, 4), free=9)
case("adjoint", aten.adjoint.default, (2, 3, 4), free=9)
case("numpy_T", aten.numpy_T.default, (2, 3), free=5)
case("movedim", lambda x: aten.movedim.intlist(x, [0, 1], [-1, 0]), (2, 3, 4), free=9)
case("moveaxis", lambda x: aten.moveaxis.int(x, 0, -1), (2, 3, 4), free=9)
case("unsqueeze", lambda x: aten.unsqueeze.default(x, -1), (3, 4), free=7)
case("squeeze", aten.squeeze.default, (3, 1, 4), free=7)
case("squeeze_dim", lambda x: aten.squeeze.dim(x, 1), (3, 1, 4), free=7)
case("squeeze_nothing", lambda x: aten.squeeze.dim(x, 0), (3, 1, 4), free=7)
case("squeeze_dims", lambda x: aten.squeeze.dims(x, [0, 1]), (3, 1, 4), free=7)
case("flip", lambda x: aten.flip.default(x, [1]), (3, 4), free=3)
case("expand", lambda x: aten.expand.default(x, [5, 3, -1]), (3, 4), free=12)
case("expand_units", lambda x: aten.expand.default(x, [5, 3, 4]), (1, 4), free=12)
case("expand_as", aten.expand_as.default, (1, 4), (5, 3, 4), free=12)
case("broadcast_to", lambda x: aten.broadcast_to.default(x, [5, 3, 4]), (3, 1), free=12)
case("meshgrid", lambda x, y: pieces(aten.meshgrid.indexing([x, y], indexing="ij"), 2), (3,), (4,), free=0)

# ------------------------------------------------------------------------------------------------------ pieces

for _name in ("cat", "concat", "concatenate"):
    case(_name, lambda x, y, op=overload(_name): op([x, y, x], 1), (2, 3), (2, 4), free=9)
case("cat_with_empty", lambda x, y: aten.cat.default([x, y], -1), (2, 3), torch.zeros(0), free=5)
case("stack", lambda x, y: aten.stack.default([x, y], -1), (2, 3), (2, 3), free=5)
case("split", lambda x: pieces(aten.split.Tensor(x, 3, 1), 3), (2, 8), free=10)
case("split_sizes", lambda x: pieces(aten.split.sizes(x, [1, 5, 2], 1), 3), (2, 8), free=10)
case("split_with_sizes", lambda x: pieces(aten.split_with_sizes.default(x, [3, 5], -1), 2), (2, 8), free=10)
case("split_with_sizes_copy", lambda x: pieces(aten.split_with_sizes_copy.default(x, [3, 5], 1), 2), (2, 8), free=10)
case("split_product", lambda x: pieces(aten.split.Tensor(aten.view.default(x, [24]), 7), 4), (6, 4), free=10)
case("chunk", lambda x: pieces(aten.chunk.default(x, 3, 1), 3), (2, 8), free=10)
case("tensor_split", lambda x: pieces(aten.tensor_split.sections(x, 3, 1), 3), (2, 8), free=10)
case("tensor_split_indices", lambda x: pieces(aten.tensor_split.indices(x, [1, 4], 1), 3), (2, 8), free=10)
case("unbind", lambda x: pieces(aten.unbind.int(x, 1), 3), (4, 3), free=4)
case("slice", lambda x: aten.slice.Tensor(x, 1, 2, -1), (3, 8), free=11)
case("slice_far", lambda x: aten.slice.Tensor(x, -1, -3, 2**63 - 1), (3, 8), free=11)
case("slice_all", lambda x: aten.slice.Tensor(x, 1, 0, 8), (3, 8), free=11)
case("slice_steps", lambda x: aten.slice.Tensor(x, 1, 1, 8, 2), (3, 8), free=7)
case("slice_steps_that_stop_early", lambda x: aten.slice.Tensor(x, 1, 1, 7, 2), (3, 8), free=3)
case("slice_steps_of_a_rest", lambda x: aten.slice.Tensor(x, 1, 0, 8, 3), (3, 8), free=3)
case("narrow", lambda x: aten.narrow.default(x, 1, 2, 4), (3, 8), free=11)
case("narrow_from_the_end", lambda x: aten.narrow.default(x, -1, -4, 3), (3, 8), free=11)
case("select", lambda x: aten.select.int(x, 1, -2), (3, 8), free=10)
case("roll", lambda x: aten.roll.default(x, [2, -1], [1, 0]), (4, 6), free=10)
case("roll_flat", lambda x: aten.roll.default(x, [2]), (4, 6), free=0)
case("repeat", lambda x: aten.repeat.default(x, [5, 1, 3]), (4, 2), free=14)
case("tile", lambda x: aten.tile.default(x, [3]), (4, 2), free=9)
case("repeat_interleave", lambda x: aten.repeat_interleave.self_int(x, 3, -1), (4, 2), free=9)
case("pad", lambda x: aten.pad.default(x, [1, 2], "constant", 0.5), (4, 3), free=10)
case("pad_reflect", lambda x: aten.pad.default(x, [1, 2], "reflect"), (4, 3), free=4)
case("pad_crop", lambda x: aten.pad.default(x, [-1, 2]), (4, 3), free=4)
case("constant_pad_nd", lambda x: aten.constant_pad_nd.default(x, [0, 2, 1, 0], 0.5), (4, 3), free=10)

# ------------------------------------------------------------------------------------------------------ contraction

case("linear", aten.linear.default, (2, 3, 6), (4, 6), (4,), free=15)
case("linear_without_bias", aten.linear.default, (3, 6), (4, 6), free=13)
case("mm", aten.mm.default, (3, 6), (6, 4), free=13)
case("bmm", aten.bmm.default, (2, 3, 6), (2, 6, 4), free=15)
case("mv", aten.mv.default, (3, 6), (6,), free=9)
case("dot", aten.dot.default, (6,), (6,), free=6)
case("vdot", aten.vdot.default, (6,), (6,), free=6)
case("outer", aten.outer.default, (3,), (6,), free=9)
case("ger", aten.ger.default, (3,), (6,), free=9)
for _left, _right, _free in [
    ((3, 6), (6, 4), 13), ((6,), (6,), 6), ((6,), (6, 4), 10), ((3, 6), (6,), 9), ((5, 2, 3, 6), (2, 6, 4), 20),
    ((2, 1, 3, 6), (5, 6, 4), 20), ((6,), (2, 6, 4), 12), ((2, 3, 6), (6,), 11),
]:  # fmt: skip
    case(f"matmul_{_left}_{_right}", aten.matmul.default, _left, _right, free=_free)
case("addmm", aten.addmm.default, (4,), (3, 6), (6, 4), free=13)
case("addmm_column", aten.addmm.default, (3, 1), (3, 6), (6, 4), free=13)
case("baddbmm", aten.baddbmm.default, (1, 3, 4), (2, 3, 6), (2, 6, 4), free=15)
case("addmv", aten.addmv.default, (3,), (3, 6), (6,), free=9)
case("einsum", lambda x, y: aten.einsum.default("bhqd,bhkd->bqhk", [x, y]), (2, 3, 4, 5), (2, 3, 6, 5), free=20)
case("einsum_sum", lambda x, y: aten.einsum.default("ij,kj->k", [x, y]), (2, 3), (4, 3), free=9)
case("einsum_batch", lambda x, y: aten.einsum.default("...iK,Kj->...jK", [x, y]), (2, 3, 4, 5), (5, 6), free=20)
case("einsum_diagonal", lambda x: aten.einsum.default("ii->i", [x]), (3, 3), free=0)
case(
    "_grouped_mm",
    lambda t, w, o: aten._grouped_mm.default(
        aten._to_copy.default(t, dtype=torch.bfloat16), aten._to_copy.default(w, dtype=torch.bfloat16), o
    ),
    (8, 16), (2, 16, 8), torch.tensor([3, 8], dtype=torch.int32), free=0,
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------ convolution

case("conv1d", lambda x, w, b: aten.conv1d.default(x, w, b, [2], [1]), (2, 4, 9), (6, 4, 3), (6,), free=12)
case("conv2d", lambda x, w, b: aten.conv2d.default(x, w, b), (2, 4, 5, 5), (6, 4, 3, 3), (6,), free=12)
case("conv2d_pointwise", lambda x, w: aten.conv2d.default(x, w), (2, 4, 3, 5), (6, 4, 1, 1), free=20)
case("conv2d_one_sample", lambda x, w: aten.conv2d.default(x, w), (4, 5, 5), (6, 4, 3, 3), free=10)
case("conv2d_same", lambda x, w: aten.conv2d.padding(x, w, None, [1], "same"), (2, 4, 5, 5), (6, 4, 3, 3), free=12)
case(
    "conv2d_groups", lambda x, w, b: aten.conv2d.default(x, w, b, [1], [1], [1], 3),
    (2, 6, 5, 5), (12, 2, 3, 3), (12,), free=2 + 3 + 2 + 4,
)  # fmt: skip
case(
    "conv2d_depthwise", lambda x, w: aten.conv2d.default(x, w, None, [1], [1], [1], 6),
    (2, 6, 5, 5), (12, 1, 3, 3), free=2 + 6 + 2,
)  # fmt: skip
case("conv3d", lambda x, w: aten.conv3d.default(x, w), (2, 4, 3, 3, 3), (6, 4, 2, 2, 2), free=12)
case(
    "convolution", lambda x, w: aten.convolution.default(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2),
    (2, 4, 5, 5), (6, 2, 3, 3), free=2 + 2 + 2 + 3,
)  # fmt: skip
case(
    "convolution_transposed",
    lambda x, w: aten.convolution.default(x, w, None, [2, 2], [0, 0], [1, 1], True, [0, 0], 2),
    (2, 4, 3, 3), (4, 3, 2, 2), free=2 + 2 + 2 + 3,
)  # fmt: skip
case("conv_transpose1d", lambda x, w: aten.conv_transpose1d.default(x, w), (2, 4, 5), (4, 6, 3), free=12)
case(
    "conv_transpose2d", lambda x, w, b: aten.conv_transpose2d.input(x, w, b, [2, 2], [0, 0], [0, 0], 2),
    (2, 4, 3, 3), (4, 3, 2, 2), (6,), free=2 + 2 + 2 + 3,
)  # fmt: skip
case("conv_transpose3d", lambda x, w: aten.conv_transpose3d.input(x, w), (2, 4, 2, 2, 2), (4, 6, 2, 2, 2), free=12)
case("_weight_norm", lambda v, g: aten._weight_norm.default(v, g, 0), (4, 3, 2), (4, 1, 1), free=9, zeros_agree=False)

# ------------------------------------------------------------------------------------------------------ normalisation

_NORM = ((2, 6, 4), (6,), (6,), (6,), (6,))
case(
    "batch_norm",
    lambda x, w, b, m, v: aten.batch_norm.default(x, w, b, m, v, False, 0.1, 1e-5, True), *_NORM, free=12,
)  # fmt: skip
case(
    "batch_norm_of_the_batch",
    lambda x, w, b: aten.batch_norm.default(x, w, b, None, None, True, 0.1, 1e-5, True), *_NORM[:3], free=12,
    zeros_agree=False,
)  # fmt: skip
case(
    "_native_batch_norm_legit_no_training",
    lambda x, w, b, m, v: aten._native_batch_norm_legit_no_training.default(x, w, b, m, v, 0.1, 1e-5)[0],
    *_NORM, free=12,
)  # fmt: skip
case(
    "instance_norm",
    lambda x, w, b: aten.instance_norm.default(x, w, b, None, None, True, 0.1, 1e-5, True), *_NORM[:3], free=12,
    zeros_agree=False,
)  # fmt: skip
case("layer_norm", lambda x, w, b: aten.layer_norm.default(x, [6], w, b), (2, 6), (6,), (6,), free=8, zeros_agree=False)
case("layer_norm_plain", lambda x: aten.layer_norm.default(x, [3, 4]), (2, 3, 4), free=9, zeros_agree=False)
case("rms_norm", lambda x, w: aten.rms_norm.default(x, [6], w), (2, 6), (6,), free=8, zeros_agree=False)
case(
    "group_norm", lambda x, w, b: aten.group_norm.default(x, 2, w, b), (2, 6, 4), (6,), (6,), free=2 + 2 + 3 + 4,
    zeros_agree=False,
)  # fmt: skip
case("group_norm_of_one", lambda x: aten.group_norm.default(x, 1), (2, 6, 4), free=12, zeros_agree=False)
for _name in ("softmax.int", "log_softmax.int"):
    case(_name, lambda x, op=overload(_name): op(x, -1), (3, 4), free=3)
for _name in ("_softmax", "_log_softmax"):
    case(_name, lambda x, op=overload(_name): op(x, 1, False), (3, 4), free=3)
for _name in ("cumsum", "cumprod", "logcumsumexp", "_safe_softmax"):
    case(_name, lambda x, op=overload(_name): op(x, 1), (3, 4), free=3)

# ------------------------------------------------------------------------------------------------------ reduction

for _name in ("sum.dim_IntList", "count_nonzero.dim_IntList", "nansum"):
    case(_name, lambda x, op=overload(_name): op(x, [1]), (2, 3, 4), free=9)
case("sum_keep", lambda x: aten.sum.dim_IntList(x, [-1], True), (3, 4), free=7)
case("sum_all", aten.sum.default, (3, 4), free=7)
case("norm", lambda x: aten.norm.ScalarOpt_dim(x, 2, [1]), (3, 4), free=7)
case("linalg_vector_norm", lambda x: aten.linalg_vector_norm.default(x, 1, [1]), (3, 4), free=7)
case("linalg_vector_norm_infinite", lambda x: aten.linalg_vector_norm.default(x, float("inf"), [1]), (3, 4), free=3)
_STATISTICS = "mean.dim var.correction std.correction amax amin logsumexp".split()
case(
    "statistics", lambda x: [overload(name)(x, [1]) for name in _STATISTICS], (2, 3, 4), free=9, least=2,
    zeros_agree=False,
)  # fmt: skip
case("mean_all", aten.mean.default, (3, 4), free=7, zeros_agree=False)
for _name in ("var_mean.correction", "std_mean.correction"):
    case(_name, lambda x, op=overload(_name): pieces(op(x, [1]), 2), (2, 3, 4), free=9, least=2, zeros_agree=False)
for _name in ("max.dim", "min.dim", "median.dim", "mode"):
    case(_name, lambda x, op=overload(_name): op(x, 1)[0], (3, 4), free=3)
case("kthvalue", lambda x: aten.kthvalue.default(x, 2, 1)[0], (3, 4), free=3)
for _name in ("any.dim", "all.dim", "argmax", "argmin", "prod.dim_int"):
    case(_name, lambda x, op=overload(_name): op(x, 1), (3, 4), free=3)
case("topk", lambda x: pieces(aten.topk.default(x, 2), 2), (3, 4), free=3)
case("sort", lambda x: pieces(aten.sort.default(x), 2), (3, 4), free=3)
case("argsort", aten.argsort.default, (3, 4), free=3)
case("tril", aten.tril.default, (2, 3, 4), free=2)
case("triu", aten.triu.default, (2, 3, 4), free=2)
case("diff", aten.diff.default, (3, 4), free=3)

# ------------------------------------------------------------------------------------------------------ indexing

case("embedding", aten.embedding.default, (7, 4), whole_numbers(3, 2, below=7), free=9)
case("index", lambda x, i: aten.index.Tensor(x, [None, i]), (3, 5, 4), whole_numbers(6), free=13)
case("index_apart", lambda x, i, j: aten.index.Tensor(x, [i, None, j]), (5, 3, 5), whole_numbers(6),
     whole_numbers(2, 1), free=11)  # fmt: skip
case("_unsafe_index", lambda x, i: aten._unsafe_index.Tensor(x, [i]), (5, 3), whole_numbers(6), free=9)
case("index_put", lambda x, i, v: aten.index_put.default(x, [i], v), (5, 3), torch.tensor([3, 1]), (2, 3), free=3)
case("_unsafe_index_put", lambda x, i, v: aten._unsafe_index_put.default(x, [i], v, True), (5, 3),
     torch.tensor([3, 1]), (3,), free=3)  # fmt: skip
case("index_by_boolean", lambda x, m, v: aten.index_put.default(x, [m], v), (4, 3),
     torch.tensor([True, False, True, True]), (3,), free=0)  # fmt: skip
case("index_select", lambda x, i: aten.index_select.default(x, 1, i), (3, 5), whole_numbers(4), free=7)
case("gather", lambda x, i: aten.gather.default(x, 1, i), (3, 5), whole_numbers(3, 4), free=3)
case("take_along_dim", lambda x, i: aten.take_along_dim.default(x, i, 1), (3, 5), whole_numbers(3, 4), free=3)
_INDEX = torch.tensor([[0, 2, 1], [3, 1, 0], [4, 3, 2]])
case("scatter", lambda x, i, s: aten.scatter.src(x, 1, i, s), (3, 5), _INDEX, (3, 3), free=3)
case("scatter_add", lambda x, i, s: aten.scatter_add.default(x, 1, i, s), (3, 5), _INDEX, (3, 3), free=3)
case("scatter_reduce", lambda x, i, s: aten.scatter_reduce.two(x, 1, i, s, "sum"), (3, 5), _INDEX, (3, 3), free=3)
case("slice_scatter", lambda x, s: aten.slice_scatter.default(x, s, 1, 2, 4), (3, 8), (3, 2), free=3)
case("select_scatter", lambda x, s: aten.select_scatter.default(x, s, 1, 2), (3, 8), (3,), free=3)
case("one_hot", lambda i: aten.one_hot.default(i, 5), whole_numbers(3, 2), free=5)
case("bucketize", aten.bucketize.Tensor, (3, 2), torch.arange(3).double(), free=0)
case("histc", lambda x: aten.histc.default(x, 5), (6,), free=0)

# ------------------------------------------------------------------------------------------------------ space

_SPACES: list[tuple[str, Callable[..., Any], int]] = [
    ("max_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("avg_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("adaptive_avg_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("adaptive_max_pool", lambda op, x, r: op(x, [2] * r)[0], 3),
]
for _rank in (1, 2, 3):
    _shape = (2, 3, 4, 5, 4)[: 2 + _rank]
    for _pattern, _call, _ in _SPACES:
        _name = f"{_pattern}{_rank}d"
        case(_name, lambda x, op=overload(_name), call=_call, r=_rank: call(op, x, r), _shape, free=5)
    if _rank > 1:
        _name = f"_adaptive_avg_pool{_rank}d"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [2] * r), _shape, free=5)
        _name = f"max_pool{_rank}d_with_indices"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [2] * r)[0], _shape, free=5)
    for _pattern in ("reflection_pad", "replication_pad"):
        _name = f"{_pattern}{_rank}d"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [1] * (2 * r)), _shape, free=5)
    _modes = {1: ("nearest", "linear"), 2: ("nearest", "bilinear", "bicubic"), 3: ("nearest", "trilinear")}[_rank]
    for _mode in _modes:
        _name, _flag = f"upsample_{_mode}{_rank}d", () if _mode == "nearest" else (False,)
        case(_name, lambda x, op=overload(_name), f=_flag, r=_rank: op(x, [7] * r, *f), _shape, free=5)
    _name = f"_upsample_nearest_exact{_rank}d"
    case(_name, lambda x, op=overload(_name), r=_rank: op(x, [7] * r), _shape, free=5)
for _name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
    case(_name, lambda x, op=overload(_name): op(x, [7, 6], False), (2, 3, 4, 5), free=5)
case("upsample_by_factor", lambda x: aten.upsample_bilinear2d.vec(x, None, False, [2.0, 2.0]), (2, 3, 4, 5), free=5)
for _name in ("grid_sampler", "grid_sampler_2d"):
    case(_name, lambda x, g, op=overload(_name): op(x, g, 0, 0, False), (2, 3, 4, 5), (2, 6, 6, 2), free=5)
case("grid_sampler_3d", lambda x, g: aten.grid_sampler_3d.default(x, g, 0, 0, False), (2, 3, 4, 4, 5), (2, 2, 2, 2, 3),
     free=5)  # fmt: skip
case("pixel_shuffle", lambda x: aten.pixel_shuffle.default(x, 2), (2, 12, 3, 3), free=5)
case("pixel_unshuffle", lambda x: aten.pixel_unshuffle.default(x, 2), (2, 3, 4, 4), free=5)
case("channel_shuffle", lambda x: aten.channel_shuffle.default(x, 3), (2, 12, 2, 2), free=2 + 3 + 4 + 2 + 2)
case("native_channel_shuffle", lambda x: aten.native_channel_shuffle.default(x, 3), (2, 12, 2, 2), free=13)
case("im2col", lambda x: aten.im2col.default(x, [2, 2], [1, 1], [0, 0], [1, 1]), (2, 3, 4, 4), free=5)
case("col2im", lambda x: aten.col2im.default(x, [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]), (2, 12, 9), free=5)
case("unfold", lambda x: aten.unfold.default(x, 1, 3, 2), (3, 9), free=3)

# ------------------------------------------------------------------------------------------------------ attention

_sdpa = aten.scaled_dot_product_attention.default
case("attention", _sdpa, (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), free=2 + 4 + 5 + 6 + 3)
case("attention_masked", _sdpa, (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), (4, 5, 7), free=20)
case("attention_causal", lambda q, k, v: _sdpa(q, k, v, None, 0.0, True), (2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 5, 3),
     free=15)  # fmt: skip
case("attention_scaled", lambda q, k, v: _sdpa(q, k, v, scale=0.3), (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), free=20)
case("attention_of_groups", lambda q, k, v: _sdpa(q, k, v, enable_gqa=True), (2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4),
     free=2 + 3 + 2 + 5 + 4 + 4)  # fmt: skip

# ------------------------------------------------------------------------------------------------------ recurrence


def _recurrent(op: Any, gates: int, directions: int, layers: int, states: int) -> tuple[Any, tuple[Operand, ...]]:
    hidden, inputs, parameters = 3, 4, []
    for layer in range(layers):
        width = inputs if layer == 0 else hidden * directions
        for _ in range(directions):
            parameters += [(gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    initial = [(layers * directions, 2, hidden)] * states

    def call(x: Any, *rest: Any) -> Any:
        hx = list(rest[:states]) if states == 2 else rest[0]
        return op(x, hx, list(rest[states:]), True, layers, 0.0, False, directions == 2, True)[0]

    return call, ((2, 5, inputs), *initial, *parameters)


for _name, _gates, _states in [("lstm", 4, 2), ("gru", 3, 1), ("rnn_tanh", 1, 1), ("rnn_relu", 1, 1)]:
    for _directions, _layers in [(1, 1), (2, 2)]:
        _function, _operands = _recurrent(getattr(aten, _name).input, _gates, _directions, _layers, _states)
        case(f"{_name}_{_directions}_{_layers}", _function, *_operands, free=2 + 4 + 3)
