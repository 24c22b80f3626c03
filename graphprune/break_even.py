"""From which sparsity on a sparse kernel beats a dense one, by kind of layer.

The numbers are for float32 on an x86-64 CPU with AVX-512 and come from ``tests/benchmarks/bench_break_even.py``. They are
where the sparse kernel is about as fast as ours for the dense weight; a layer exactly there gains nothing either way.
"""

from __future__ import annotations

KINDS = ("linear", "linear_vector", "conv1x1", "conv_kxk")

# kind -> smallest sparsity at which the sparse kernel is used
BREAK_EVEN = {
    "linear": 0.65,
    "linear_vector": 0.80,
    "conv1x1": 0.65,
    "conv_kxk": 0.65,
}

# A linear layer on fewer rows than this is a matrix-vector product: bound by reading weights, not by arithmetic.
VECTOR_ROWS = 4


def layer_kind(weight_shape: tuple[int, ...], rows: int | None) -> str:
    """Return the kind of a layer from its weight's shape and, for a linear layer, its number of input rows if known."""
    if len(weight_shape) == 4:
        return "conv1x1" if weight_shape[2:] == (1, 1) else "conv_kxk"
    return "linear_vector" if rows is not None and rows < VECTOR_ROWS else "linear"
