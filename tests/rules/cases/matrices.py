"""Matrices as matrices."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

import torch

from graphprune.rules.matrices import FACTORIZATIONS
from tests.rules.cases.base import aten, case, first_overload, overload, pieces

case("tril", aten.tril.default, (2, 3, 4), free=2)
case("triu", aten.triu.default, (2, 3, 4), free=2)
for _name, _diagonals in (("tril", (0, -1)), ("triu", (0, 1))):
    for _diagonal in _diagonals:
        case(f"{_name}_square_{_diagonal}", lambda x, op=overload(_name), k=_diagonal: op(x, k), (2, 4, 4), free=6)
    case(f"{_name}_far", lambda x, op=overload(_name): op(x, 2), (2, 4, 4), free=2)
case("diagonal", lambda x: aten.diagonal.default(x, 0, 0, 2), (4, 3, 4), free=7)
case("diagonal_oblong", aten.diagonal.default, (3, 4, 5), free=5)
case("diagonal_off", lambda x: aten.diagonal.default(x, 1), (4, 4, 5), free=5)
case("linalg_diagonal", aten.linalg_diagonal.default, (3, 4, 4), free=7)
case("trace", aten.trace.default, (4, 4), free=4)
case("trace_oblong", aten.trace.default, (4, 3), free=0)
case("diag_embed", lambda x: aten.diag_embed.default(x, 0, 0, -1), (3, 4), free=7)
case("diag_embed_off", lambda x: aten.diag_embed.default(x, 1), (3, 4), free=3)
case("diag", aten.diag.default, (4,), free=4)
case("diag_of_a_matrix", aten.diag.default, (4, 4), free=4)
case("diagflat", aten.diagflat.default, (4,), free=4)
for _name in ("matrix_exp", "linalg_matrix_exp"):
    case(_name, overload(_name), (2, 4, 4), free=6)

_ARGUMENTS = {"linalg_matrix_power": (2,), "matrix_power": (2,), "linalg_pinv": (1e-6,), "linalg_matrix_rank": (1e-6,)}
_RESULTS = {
    "linalg_cholesky_ex": 2, "linalg_eig": 2, "linalg_eigh": 2, "linalg_inv_ex": 2, "linalg_ldl_factor": 2,
    "linalg_ldl_factor_ex": 3, "linalg_lu": 3, "linalg_lu_factor": 2, "linalg_lu_factor_ex": 3, "linalg_qr": 2,
    "linalg_slogdet": 2, "linalg_svd": 3, "slogdet": 2, "svd": 3, "geqrf": 2, "_lu_with_info": 3, "_linalg_svd": 3,
    "_linalg_det": 3, "_linalg_slogdet": 4, "_linalg_eigh": 2, "linalg_polar": 2,
}  # fmt: skip
_OTHER_OPERANDS = {"linalg_householder_product", "lu_unpack"}
_COMPLEX = {"linalg_eig", "linalg_eigvals"}


_SHIFT = 3 * torch.eye(3, dtype=torch.float64)
"""Makes a drawn matrix invertible, and positive definite where an op reads its lower triangle only."""

for _name in FACTORIZATIONS:
    if _name in _OTHER_OPERANDS or not hasattr(aten, _name):
        continue

    def _call(x, shift, op=first_overload(_name), rest=_ARGUMENTS.get(_name, ()), count=_RESULTS.get(_name, 1)):
        result = op(aten.add.Tensor(x, shift), *rest)
        return result if count == 1 else [result[0]]

    case(_name, _call, (2, 3, 3), _SHIFT, free=2, zeros_agree=False, complex_results=_name in _COMPLEX)
case("linalg_householder_product", aten.linalg_householder_product.default, (2, 4, 3), (2, 3), free=0)
case("lu_unpack", lambda x, p: pieces(aten.lu_unpack.default(x, p), 3), (2, 3, 3),
     torch.tensor([[1, 2, 3], [3, 2, 3]], dtype=torch.int32), free=0)  # fmt: skip
