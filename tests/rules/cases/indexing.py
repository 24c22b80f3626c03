"""Look-ups and writes by value."""

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case, whole_numbers

case("embedding", aten.embedding.default, (7, 4), whole_numbers(3, 2, below=7), free=9)
case("index", lambda x, i: aten.index.Tensor(x, [None, i]), (3, 5, 4), whole_numbers(6), free=12)
case("index_apart", lambda x, i, j: aten.index.Tensor(x, [i, None, j]), (5, 3, 5), whole_numbers(6),
     whole_numbers(2, 1), free=11)  # fmt: skip
case("_unsafe_index", lambda x, i: aten._unsafe_index.Tensor(x, [i]), (5, 3), whole_numbers(6), free=8)
case("index_put", lambda x, i, v: aten.index_put.default(x, [i], v), (5, 3), torch.tensor([3, 1]), (2, 3), free=8)
case("_unsafe_index_put", lambda x, i, v: aten._unsafe_index_put.default(x, [i], v, True), (5, 3),
     torch.tensor([3, 1]), (3,), free=8)  # fmt: skip
case("index_by_boolean", lambda x, m, v: aten.index_put.default(x, [m], v), (4, 3),
     torch.tensor([True, False, True, True]), (3,), free=0)  # fmt: skip
case("index_select", lambda x, i: aten.index_select.default(x, 1, i), (3, 5), whole_numbers(4), free=8)
case("gather", lambda x, i: aten.gather.default(x, 1, i), (3, 5), whole_numbers(3, 4), free=3)
case("take_along_dim", lambda x, i: aten.take_along_dim.default(x, i, 1), (3, 5), whole_numbers(3, 4), free=7)
_INDEX = torch.tensor([[0, 2, 1], [3, 1, 0], [4, 3, 2]])
case("scatter", lambda x, i, s: aten.scatter.src(x, 1, i, s), (3, 5), _INDEX, (3, 3), free=3)
case("scatter_add", lambda x, i, s: aten.scatter_add.default(x, 1, i, s), (3, 5), _INDEX, (3, 3), free=3)
case("scatter_reduce", lambda x, i, s: aten.scatter_reduce.two(x, 1, i, s, "sum"), (3, 5), _INDEX, (3, 3), free=3)
case("one_hot", lambda i: aten.one_hot.default(i, 5), whole_numbers(3, 2), free=5)
case("bucketize", aten.bucketize.Tensor, (3, 2), torch.arange(3).double(), free=0)
case("histc", lambda x: aten.histc.default(x, 5), (6,), free=0)
_ORDER = torch.tensor([5, 2, 0, 7, 3, 6, 1, 4])
case("index_permuted", lambda x, i: aten.index.Tensor(x, [None, i]), (3, 8), _ORDER, free=11)
case("index_table", lambda x, i: aten.index.Tensor(x, [None, i]), (3, 8), _ORDER.view(2, 4), free=3 + 2 + 4)
case("gather_permuted", lambda x, i: aten.gather.default(x, 1, i), (3, 8), _ORDER.expand(3, 8).clone(), free=11)
case("take_along_permuted", lambda x, i: aten.take_along_dim.default(x, i, 1), (3, 8), _ORDER.view(1, 8), free=11)
case("embedding_constant", aten.embedding.default, (8, 4), _ORDER[:5], free=9)
_ROWS = torch.tensor([True, False, True])[:, None]
case("masked_scatter", lambda x, m, s: aten.masked_scatter.default(x, aten.expand.default(m, [3, 4]), s), (3, 4), _ROWS,
     (2, 4), free=4)  # fmt: skip
case("masked_scatter_broadcast", aten.masked_scatter.default, (3, 4), _ROWS, (1, 2, 4), free=4)
_ELEMENTS = torch.tensor([[True, False, True], [False, True, True]])
case("masked_scatter_elements", aten.masked_scatter.default, (2, 3), _ELEMENTS, (2, 3), free=0)
