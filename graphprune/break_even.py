"""From which sparsity on a sparse kernel beats a dense one, by kind of layer.

The numbers are where the sparse kernel is about as fast as the dense one; a layer exactly there gains nothing either
way. Those of ``llvm`` are for float32 on an x86-64 CPU with AVX-512 and come from
``tests/benchmarks/bench_break_even.py``. Those of ``cuda`` are for float16 on an H100 against cuBLAS: one row was
measured with an earlier version of the kernel, for which 50 % zeros already gained a fifth; few rows are an estimate
from the traffic in shared memory, and from some tens of rows on tensor cores win until about 96 %. Convolutions have no
sparse CUDA kernel. ``tests/benchmarks/bench_cuda_linear.py`` measures them again.
"""

from __future__ import annotations

KINDS = ("linear", "linear_few_rows", "linear_vector", "conv1x1", "conv_kxk")

# target kind -> layer kind -> smallest sparsity at which the sparse kernel is used; a kind that is missing has none
BREAK_EVEN: dict[str, dict[str, float]] = {
    "llvm": {
        "linear": 0.65,
        "linear_few_rows": 0.65,
        "linear_vector": 0.80,
        "conv1x1": 0.65,
        "conv_kxk": 0.65,
    },
    "cuda": {
        "linear": 0.96,
        "linear_few_rows": 0.70,
        "linear_vector": 0.45,
    },
}

# target kind -> most input rows at which a linear layer is a matrix-vector product, bound by reading weights
VECTOR_ROWS = {"llvm": 3, "cuda": 1}

# target kind -> most input rows that share one read of the weight
FEW_ROWS = {"llvm": 3, "cuda": 8}


def layer_kind(weight_shape: tuple[int, ...], rows: int | None, target_kind: str = "llvm") -> str:
    """Return the kind of a layer from its weight's shape and, for a linear layer, its number of input rows if known."""
    if len(weight_shape) == 4:
        return "conv1x1" if weight_shape[2:] == (1, 1) else "conv_kxk"
    if rows is None or rows > FEW_ROWS[target_kind]:
        return "linear"
    return "linear_vector" if rows <= VECTOR_ROWS[target_kind] else "linear_few_rows"
