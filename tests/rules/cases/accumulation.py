"""Rows added up or written by index."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case, whole_numbers

_OFFSETS = torch.tensor([0, 2])
case("embedding_bag", lambda w, i, o: aten.embedding_bag.default(w, i, o)[0], (7, 4), whole_numbers(6), _OFFSETS,
     free=4)  # fmt: skip
case("embedding_bag_max", lambda w, i, o: aten.embedding_bag.default(w, i, o, False, 2)[0], (7, 4), whole_numbers(6),
     _OFFSETS, free=4)  # fmt: skip
for _name in ("_embedding_bag", "_embedding_bag_forward_only"):
    case(_name, lambda w, i, o, s, op=getattr(aten, _name).default: op(w, i, o, False, 0, False, s)[0], (7, 4),
         whole_numbers(6), _OFFSETS, (6,), free=4)  # fmt: skip
_INDEX = torch.tensor([3, 0, 3])
case("index_add", lambda x, i, s: aten.index_add.default(x, 1, i, s), (2, 5, 4), _INDEX, (2, 3, 4), free=9)
case("index_copy", lambda x, i, s: aten.index_copy.default(x, 1, i, s), (2, 5, 4), _INDEX[:2], (2, 2, 4), free=6)
case(
    "index_reduce", lambda x, i, s: aten.index_reduce.default(x, 1, i, s, "amax"), (2, 5, 4), _INDEX, (2, 3, 4), free=6
)
case("index_fill", lambda x, i: aten.index_fill.int_Scalar(x, 1, i, 2.0), (2, 5, 4), _INDEX, free=6)
