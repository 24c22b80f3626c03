"""Products that sum over an axis."""

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case

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
case("einsum_diagonal", lambda x: aten.einsum.default("ii->i", [x]), (3, 3), free=3)
case("einsum_trace", lambda x: aten.einsum.default("bii", [x]), (2, 3, 3), free=5)
case("einsum_implicit", lambda x, y: aten.einsum.default("...ij,...jB", [x, y]), (2, 3, 5), (2, 5, 4), free=14)
case(
    "_grouped_mm",
    lambda t, w, o: aten._grouped_mm.default(
        aten._to_copy.default(t, dtype=torch.bfloat16), aten._to_copy.default(w, dtype=torch.bfloat16), o
    ),
    (8, 16), (2, 16, 8), torch.tensor([3, 8], dtype=torch.int32), free=24, rounded=True, judged=False,
)  # fmt: skip
case("linalg_matmul", aten.linalg_matmul.default, (2, 3, 6), (6, 4), free=15)
case("addbmm", aten.addbmm.default, (4,), (2, 3, 6), (2, 6, 4), free=15)
case("addr", aten.addr.default, (3, 4), (3,), (4,), free=7)
case("bilinear", aten.bilinear.default, (2, 3), (2, 5), (4, 3, 5), (4,), free=14)
case("inner", aten.inner.default, (2, 3, 6), (4, 6), free=15)
case("tensordot", lambda x, y: aten.tensordot.default(x, y, [0, 2], [1, 0]), (3, 2, 5), (5, 3, 4), free=14)
case("kron", aten.kron.default, (2, 3), (4,), free=9)
case("chain_matmul", lambda x, y, z: aten.chain_matmul.default([x, y, z]), (2, 3), (3, 4), (4, 5), free=14)
case("linalg_multi_dot", lambda x, y, z: aten.linalg_multi_dot.default([x, y, z]), (3,), (3, 4), (4,), free=7)
