"""Reductions."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

from tests.rules.cases.base import aten, case, overload, pieces

for _name in ("sum.dim_IntList", "count_nonzero.dim_IntList", "nansum"):
    case(_name, lambda x, op=overload(_name): op(x, [1]), (2, 3, 4), free=9)
case("sum_keep", lambda x: aten.sum.dim_IntList(x, [-1], True), (3, 4), free=7)
case("sum_all", aten.sum.default, (3, 4), free=7)
case("norm", lambda x: aten.norm.ScalarOpt_dim(x, 2, [1]), (3, 4), free=7)
case("linalg_vector_norm", lambda x: aten.linalg_vector_norm.default(x, 1, [1]), (3, 4), free=7)
case("linalg_vector_norm_infinite", lambda x: aten.linalg_vector_norm.default(x, float("inf"), [1]), (3, 4), free=7)
_STATISTICS = "mean.dim var.correction std.correction amax amin logsumexp".split()
case(
    "statistics", lambda x: [overload(name)(x, [1]) for name in _STATISTICS], (2, 3, 4), free=9, least=2,
    zeros_agree=False,
)  # fmt: skip
case("mean_all", aten.mean.default, (3, 4), free=7, zeros_agree=False)
for _name in ("var_mean.correction", "std_mean.correction"):
    case(_name, lambda x, op=overload(_name): pieces(op(x, [1]), 2), (2, 3, 4), free=9, least=2, zeros_agree=False)
for _name in ("max.dim", "min.dim"):
    case(_name, lambda x, op=overload(_name): op(x, 1)[0], (3, 4), free=7, zeros_agree=False)
for _name in ("median.dim", "mode"):
    case(_name, lambda x, op=overload(_name): op(x, 1)[0], (3, 4), free=3)
case("kthvalue", lambda x: aten.kthvalue.default(x, 2, 1)[0], (3, 4), free=3)
case("any", lambda x: aten.any.dim(x, 1), (3, 4), free=7)
for _name in ("all.dim", "argmax", "argmin", "prod.dim_int"):
    case(_name, lambda x, op=overload(_name): op(x, 1), (3, 4), free=3)
case("topk", lambda x: pieces(aten.topk.default(x, 2), 2), (3, 4), free=3)
case("sort", lambda x: pieces(aten.sort.default(x), 2), (3, 4), free=3)
case("argsort", aten.argsort.default, (3, 4), free=3)
case("diff", aten.diff.default, (3, 4), free=3)
_FURTHER_STATISTICS = ["nanmean", "special_logsumexp"]
case("further_statistics", lambda x: [overload(name)(x, [1]) for name in _FURTHER_STATISTICS], (2, 3, 4), free=9,
     zeros_agree=False)  # fmt: skip
case("aminmax", lambda x: pieces(aten.aminmax.default(x, dim=1), 2), (2, 3, 4), free=9, zeros_agree=False)
case("nanmedian", lambda x: aten.nanmedian.dim(x, 1)[0], (3, 4), free=3)
for _name in ("quantile", "nanquantile"):
    case(_name, lambda x, q, op=overload(_name): op(x, q, 1), (3, 4), (5,), free=8)
case("quantile_one", lambda x: aten.quantile.scalar(x, 0.3, 0, True), (3, 4), free=4)
case("msort", aten.msort.default, (3, 4), free=4)
case("norm_of_negative_order", lambda x: aten.norm.ScalarOpt_dim(x, -1, [1]), (3, 4), free=3)
case("frobenius_norm", lambda x: aten.frobenius_norm.dim(x, [1]), (3, 4), free=7)
case("linalg_norm", lambda x: aten.linalg_norm.default(x, None, [1]), (3, 4), free=7)
case("linalg_norm_of_matrices", lambda x: aten.linalg_norm.default(x, 2, [0, 1]), (3, 4, 2), free=9)
case("linalg_norm_of_negative_order", lambda x: aten.linalg_norm.default(x, -2, [0, 1]), (3, 3, 2), free=2)
case("nuclear_norm", aten.nuclear_norm.default, (3, 4), free=7)
case("linalg_matrix_norm", aten.linalg_matrix_norm.str_ord, (2, 3, 4), free=9)
case("linalg_matrix_norm_of_order", lambda x: aten.linalg_matrix_norm.default(x, 2), (2, 3, 4), free=9)
case("dist", aten.dist.default, (3, 4), (3, 4), free=7)
case("dist_broadcast", aten.dist.default, (3, 4), (4,), free=4)
case("cosine_similarity_broadcast", aten.cosine_similarity.default, (2, 4, 3), (2, 1, 3), free=5)
case("dist_of_negative_order", lambda x, y: aten.dist.default(x, y, -1), (3, 4), (3, 4), free=0)
for _order in (1.0, 2.0, float("inf")):
    case(f"cdist_{_order}", lambda x, y, p=_order: aten.cdist.default(x, y, p), (2, 3, 6), (2, 4, 6), free=15)
case("_cdist_forward", lambda x, y: aten._cdist_forward.default(x, y, 2.0, None), (3, 6), (4, 6), free=13)
case("_euclidean_dist", aten._euclidean_dist.default, (3, 6), (4, 6), free=13)
for _name in ("pdist", "_pdist_forward"):
    case(_name, overload(_name), (4, 6), free=6)
case("cosine_similarity", lambda x, y: aten.cosine_similarity.default(x, y, 1), (2, 4, 3), (2, 4, 3), free=9)
case("linalg_vecdot", lambda x, y: aten.linalg_vecdot.default(x, y, dim=1), (2, 4, 3), (1, 4, 3), free=9)
case("pairwise_distance", aten.pairwise_distance.default, (2, 4), (2, 4), free=6, zeros_agree=False)
case("pairwise_distance_kept", lambda x, y: aten.pairwise_distance.default(x, y, 1.0, 1e-6, True), (2, 4), (2, 4),
     free=6, zeros_agree=False)  # fmt: skip
