"""Ops that join and cut axes."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case, overload, pieces

for _name in ("cat", "concat", "concatenate"):
    case(_name, lambda x, y, op=overload(_name): op([x, y, x], 1), (2, 3), (2, 4), free=9)
case("cat_with_empty", lambda x, y: aten.cat.default([x, y], -1), (2, 3), torch.zeros(0), free=5)
case("stack", lambda x, y: aten.stack.default([x, y], -1), (2, 3), (2, 3), free=5)
case("split", lambda x: pieces(aten.split.Tensor(x, 3, 1), 3), (2, 8), free=10)
case("split_sizes", lambda x: pieces(aten.split.sizes(x, [1, 5, 2], 1), 3), (2, 8), free=10)
case("split_with_sizes", lambda x: pieces(aten.split_with_sizes.default(x, [3, 5], -1), 2), (2, 8), free=10)
case("split_with_sizes_copy", lambda x: pieces(aten.split_with_sizes_copy.default(x, [3, 5], 1), 2), (2, 8), free=10)
case("split_product", lambda x: pieces(aten.split.Tensor(aten.view.default(x, [24]), 7), 4), (6, 4), free=10)
case("chunk", lambda x: pieces(aten.chunk.default(x, 3, 1), 3), (2, 8), free=10)
case("tensor_split", lambda x: pieces(aten.tensor_split.sections(x, 3, 1), 3), (2, 8), free=10)
case("tensor_split_indices", lambda x: pieces(aten.tensor_split.indices(x, [1, 4], 1), 3), (2, 8), free=10)
case("unbind", lambda x: pieces(aten.unbind.int(x, 1), 3), (4, 3), free=4)
case("slice", lambda x: aten.slice.Tensor(x, 1, 2, -1), (3, 8), free=11)
case("slice_far", lambda x: aten.slice.Tensor(x, -1, -3, 2**63 - 1), (3, 8), free=11)
case("slice_all", lambda x: aten.slice.Tensor(x, 1, 0, 8), (3, 8), free=11)
case("slice_steps", lambda x: aten.slice.Tensor(x, 1, 1, 8, 2), (3, 8), free=7)
case("slice_steps_that_stop_early", lambda x: aten.slice.Tensor(x, 1, 1, 7, 2), (3, 8), free=3)
case("slice_steps_of_a_rest", lambda x: aten.slice.Tensor(x, 1, 0, 8, 3), (3, 8), free=3)
case("narrow", lambda x: aten.narrow.default(x, 1, 2, 4), (3, 8), free=11)
case("narrow_from_the_end", lambda x: aten.narrow.default(x, -1, -4, 3), (3, 8), free=11)
case("slice_scatter", lambda x, s: aten.slice_scatter.default(x, s, 1, 2, 4), (3, 8), (3, 2), free=11)
case("slice_scatter_all", lambda x, s: aten.slice_scatter.default(x, s, -1), (3, 8), (3, 8), free=11)
case("slice_scatter_far", lambda x, s: aten.slice_scatter.default(x, s, -1, -3, 2**63 - 1), (3, 8), (3, 3), free=11)
case("slice_scatter_steps", lambda x, s: aten.slice_scatter.default(x, s, 1, 1, 8, 2), (3, 8), (3, 4), free=7)
case("select_scatter", lambda x, s: aten.select_scatter.default(x, s, 1, -2), (3, 8), (3,), free=10)
case("select", lambda x: aten.select.int(x, 1, -2), (3, 8), free=10)
case("roll", lambda x: aten.roll.default(x, [2, -1], [1, 0]), (4, 6), free=10)
case("roll_flat", lambda x: aten.roll.default(x, [2]), (4, 6), free=0)
case("repeat", lambda x: aten.repeat.default(x, [5, 1, 3]), (4, 2), free=14)
case("tile", lambda x: aten.tile.default(x, [3]), (4, 2), free=9)
case("repeat_interleave", lambda x: aten.repeat_interleave.self_int(x, 3, -1), (4, 2), free=9)
case("pad", lambda x: aten.pad.default(x, [1, 2], "constant", 0.5), (4, 3), free=10)
case("pad_reflect", lambda x: aten.pad.default(x, [1, 2], "reflect"), (4, 3), free=4)
case("pad_crop", lambda x: aten.pad.default(x, [-1, 2]), (4, 3), free=4)
case("constant_pad_nd", lambda x: aten.constant_pad_nd.default(x, [0, 2, 1, 0], 0.5), (4, 3), free=10)
case("unsafe_split", lambda x: pieces(aten.unsafe_split.Tensor(x, 3, 1), 3), (2, 8), free=10)
case(
    "unsafe_split_with_sizes", lambda x: pieces(aten.unsafe_split_with_sizes.default(x, [3, 5], 1), 2), (2, 8), free=10
)
case("unsafe_chunk", lambda x: pieces(aten.unsafe_chunk.default(x, 3, 1), 3), (2, 8), free=10)
case("hsplit", lambda x: pieces(aten.hsplit.array(x, [3]), 2), (2, 8), free=10)
case("hsplit_of_a_vector", lambda x: pieces(aten.hsplit.int(x, 2), 2), (8,), free=8)
case("vsplit", lambda x: pieces(aten.vsplit.int(x, 2), 2), (8, 2), free=10)
case("dsplit", lambda x: pieces(aten.dsplit.int(x, 2), 2), (2, 3, 8), free=13)
case("hstack", lambda x, y: aten.hstack.default([x, y]), (2, 3), (2, 4), free=9)
case("hstack_of_vectors", lambda x, y: aten.hstack.default([x, y]), (3,), (4,), free=7)
for _name in ("vstack", "row_stack"):
    case(_name, lambda x, y, op=overload(_name): op([x, y]), (3, 2), (4, 2), free=9)
case("vstack_of_vectors", lambda x, y: aten.vstack.default([x, y]), (3,), (3,), free=3)
case("vstack_of_both", lambda x, y: aten.vstack.default([x, y]), (3,), (4, 3), free=7)
case("column_stack", lambda x, y: aten.column_stack.default([x, y]), (3, 2), (3,), free=5)
case("dstack", lambda x, y: aten.dstack.default([x, y]), (3, 2), (3, 2), free=5)
case("dstack_of_both", lambda x, y: aten.dstack.default([x, y]), (3,), (1, 3, 2), free=5)
case("block_diag", lambda x, y, z: aten.block_diag.default([x, y, z]), (3, 2), (4, 5), (6,), free=20)
case("_pad_enum", lambda x: aten._pad_enum.default(x, [1, 2], 1), (4, 3), free=4)
case("_pad_circular", lambda x: aten._pad_circular.default(x, [1, 2]), (2, 4, 3), free=6)
