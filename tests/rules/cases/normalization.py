"""Norms and softmax."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

from tests.rules.cases.base import aten, case, overload, pieces

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
    case(_name, lambda x, op=overload(_name): op(x, -1), (3, 4), free=7, zeros_agree=False)
for _name in ("_softmax", "_log_softmax"):
    case(_name, lambda x, op=overload(_name): op(x, 1, False), (3, 4), free=7, zeros_agree=False)
case("cumsum", lambda x: aten.cumsum.default(x, 1), (3, 4), free=3)
case("cumsum_vector", lambda x: aten.cumsum.default(x, 0), (4,), free=4)
case("_safe_softmax", lambda x: aten._safe_softmax.default(x, 1), (3, 4), free=7, zeros_agree=False)
for _name in ("cumprod", "logcumsumexp"):
    case(_name, lambda x, op=overload(_name): op(x, 1), (3, 4), free=3)
for _name in ("cummax", "cummin"):
    case(_name, lambda x, op=overload(_name): op(x, 1)[0], (3, 4), free=3)
for _name in ("special_softmax", "special_log_softmax"):
    case(_name, lambda x, op=overload(_name): op(x, -1), (3, 4), free=7, zeros_agree=False)
case("native_layer_norm", lambda x, w, b: pieces(aten.native_layer_norm.default(x, [6], w, b, 1e-5), 3), (2, 6), (6,),
     (6,), free=8, zeros_agree=False)  # fmt: skip
case("_fused_rms_norm", lambda x, w: aten._fused_rms_norm.default(x, [6], w, 1e-5)[0], (2, 6), (6,), free=8,
     zeros_agree=False)  # fmt: skip
case("native_group_norm", lambda x, w, b: pieces(aten.native_group_norm.default(x, w, b, 2, 6, 4, 2, 1e-5), 3),
     (2, 6, 4), (6,), (6,), free=2 + 2 + 3 + 4, zeros_agree=False)  # fmt: skip
case("native_group_norm_of_one", lambda x: pieces(aten.native_group_norm.default(x, None, None, 2, 6, 4, 1, 1e-5), 3),
     (2, 6, 4), free=12, zeros_agree=False)  # fmt: skip
case("native_batch_norm",
     lambda x, w, b, m, v: aten.native_batch_norm.default(x, w, b, m, v, False, 0.1, 1e-5)[0], *_NORM,
     free=12)  # fmt: skip
case("_native_batch_norm_legit",
     lambda x, w, b: pieces(aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5), 3), *_NORM[:3], free=12,
     zeros_agree=False)  # fmt: skip
case("_batch_norm_impl_index",
     lambda x, w, b, m, v: aten._batch_norm_impl_index.default(x, w, b, m, v, False, 0.1, 1e-5, False)[0], *_NORM,
     free=12)  # fmt: skip
