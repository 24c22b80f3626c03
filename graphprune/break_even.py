"""From which sparsity on a sparse kernel beats a dense one, by kind of layer.

The numbers are for float32 on an x86-64 CPU with AVX2, from ``tests/benchmarks/bench_break_even.py``: against our own
dense kernels, sparse ones drew level at 40 % or below for matrix products, matrix-vector products and convolutions,
on layers of ResNet-50 and MiniLM, and at 61 to 65 % for two or three rows, at 59 to 69 % for four to eight, which
leave a vector mostly empty (later still in small layers that stay in a cache). The table keeps a margin, because near
the crossing the gain depends on the shape. Convolutions that a dense kernel computes by Winograd's algorithm are
another matter: at 28x28 the sparse kernel drew level at 83 %, at 56x56 at 77 %, at 14x14 at 73 %; smaller planes and
layers of few channels gain less from the algorithm, and count as ``conv_kxk``.
"""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("linear", "linear_few_rows", "linear_vector", "conv1x1", "conv_kxk", "conv_winograd")

# target kind -> layer kind -> smallest sparsity at which the sparse kernel is used; a kind that is missing has none
BREAK_EVEN: dict[str, dict[str, float]] = {
    "llvm": {
        "linear": 0.50,
        "linear_few_rows": 0.75,
        "linear_vector": 0.50,
        "conv1x1": 0.50,
        "conv_kxk": 0.50,
        "conv_winograd": 0.80,
    },
    "cuda": {
        "linear": 0.96,
        "linear_few_rows": 0.70,
        "linear_vector": 0.45,
    },
}

# target kind -> most input rows at which a linear layer is a matrix-vector product, bound by reading weights
VECTOR_ROWS = {"llvm": 1, "cuda": 1}

# target kind -> most input rows that share one read of the weight, or fill one vector at most
FEW_ROWS = {"llvm": 8, "cuda": 8}


_LEAST_PLANE = 64  # input positions from which on tiles of Winograd's algorithm are mostly full
_LEAST_CHANNELS = 32  # from which on its transforms take little of the time
_MOST_TAPS = 5  # along an axis


def suits_winograd(
    weight_shape: tuple[int, ...], plane: int | None, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Say whether a dense CPU kernel gains much from Winograd's algorithm on inputs of ``plane`` positions."""
    filters = max(weight_shape[2:]) > 1 and max(weight_shape[2:]) <= _MOST_TAPS
    steps = max(*stride, *dilation, groups) == 1
    return filters and steps and (plane or 0) >= _LEAST_PLANE and min(weight_shape[:2]) >= _LEAST_CHANNELS


def layer_kind(
    weight_shape: tuple[int, ...], rows: int | None, target_kind: str = "llvm", *, winograd: bool = False
) -> str:
    """Return the kind of a layer from its weight's shape and, for a linear layer, its number of input rows if known.

    ``winograd`` says that dense it would be computed by Winograd's algorithm.
    """
    if winograd and target_kind == "llvm":
        return "conv_winograd"
    if len(weight_shape) == 4:
        return "conv1x1" if weight_shape[2:] == (1, 1) else "conv_kxk"
    if rows is None or rows > FEW_ROWS[target_kind]:
        return "linear"
    return "linear_vector" if rows <= VECTOR_ROWS[target_kind] else "linear_few_rows"
