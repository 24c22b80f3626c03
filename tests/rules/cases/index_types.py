"""Integer values that number an axis: what chooses elements, and what looks them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.rules.cases.base import Operand, aten, case, pieces


def best(x: Any, count: int = 2) -> Any:
    """Return the numbers of the largest elements along the last axis."""
    return pieces(aten.topk.default(x, count), 2)[1]


def choice(name: str, function: Callable[..., Any], *operands: Operand, free: int) -> None:
    """Add a case whose first operand chooses two elements of its last axis."""
    case(f"choice_{name}", function, *operands, free=free, least=2, zeros_agree=False)


_COUNT = torch.arange(4)
choice("index", lambda x, w: aten.index.Tensor(w, [best(x)]), (3, 4), (4, 5), free=3 + 4 + 5)
choice("reshaped", lambda x, w: aten.embedding.default(w, aten.view.default(best(x), [-1])), (3, 4), (4, 5), free=12)
choice("gather", lambda x, y: aten.gather.default(y, 1, best(x)), (3, 4), (3, 4), free=7)
choice("scatter", lambda x, s: aten.scatter.src(aten.zeros_like.default(x), 1, best(x), s), (3, 4), (3, 2), free=7)
choice("one_hot", lambda x: aten.one_hot.default(best(x), 4), (3, 4), free=7)
choice("one_hot_and_more", lambda x: aten.one_hot.default(best(x), 6), (3, 4), free=7)
choice("compare", lambda x, c: aten.eq.Tensor(aten.unsqueeze.default(best(x), -1), c), (3, 4), _COUNT, free=7)
choice(
    "histogram",
    lambda x: aten.cumsum.default(aten.histc.default(aten._to_copy.default(best(x), dtype=torch.float32), 4, 0, 3), 0),
    (3, 4), free=4,
)  # fmt: skip
choice("sorted", lambda x, w: aten.index.Tensor(w, [pieces(aten.sort.default(best(x)), 2)[0]]), (3, 4), (4, 5), free=12)
choice("computed_with", lambda x: aten.mul.Tensor(best(x), 2), (3, 4), free=3)
choice("argmax", lambda x, w: aten.embedding.default(w, aten.argmax.default(x, 1)), (3, 4), (4, 5), free=12)
choice("max", lambda x, w: aten.index_select.default(w, 0, aten.max.dim(x, 1)[1]), (3, 4), (4, 5), free=12)
