"""From which sparsity on a sparse kernel beats a dense one, by kind of layer.

The numbers are for float32 on an x86-64 CPU with AVX2, from ``tests/benchmarks/bench_break_even.py``: against our
own dense kernels, sparse ones drew level below 40 % for matrix products and convolutions and at 56 % for matrix-vector
products, on layers of ResNet-50 and MiniLM. The table keeps a margin, because near the crossing the gain depends on
the shape.
"""

from __future__ import annotations

KINDS = ("linear", "linear_few_rows", "linear_vector", "conv1x1", "conv_kxk")

# target kind -> layer kind -> smallest sparsity at which the sparse kernel is used; a kind that is missing has none
BREAK_EVEN: dict[str, dict[str, float]] = {
    "llvm": {
        "linear": 0.50,
        "linear_few_rows": 0.65,
        "linear_vector": 0.60,
        "conv1x1": 0.50,
        "conv_kxk": 0.50,
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
