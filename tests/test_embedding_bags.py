"""Bags of equal size become an embedding and a reduction with the same values; others stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphprune.compiler import compile
from graphprune.graph import op_name
from graphprune.passes.fold_constants import FoldConstants
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.tracing.trace import trace

INDICES = torch.tensor([[1, 2, 0], [0, 0, 0], [4, 3, 3], [2, 0, 1]])


def _fused(model, *inputs):
    gm = FuseEpilogues()(FoldConstants()(trace(model.eval(), inputs)))
    torch.testing.assert_close(gm(*inputs), model(*inputs))
    return {op_name(node) for node in gm.graph.nodes}


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0])
def test_bags_of_equal_size(mode, padding):
    names = _fused(nn.EmbeddingBag(5, 4, mode=mode, padding_idx=padding), INDICES)
    assert ("embedding" in names) != (mode == "max" and padding is not None)


def test_weights_and_bags_of_several_sizes():
    assert "embedding" in _fused(nn.EmbeddingBag(5, 4, mode="sum"), INDICES, None, torch.rand(4, 3))

    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            self.bags = nn.EmbeddingBag(5, 4)
            self.register_buffer("offsets", torch.tensor([0, 3, 4]))

        def forward(self, indices):
            return self.bags(indices, self.offsets)

    assert "embedding_bag" in _fused(Uneven(), INDICES.flatten())


def test_compiled_equals_torch():
    model = nn.EmbeddingBag(5, 4, mode="mean", padding_idx=0).eval()
    torch.testing.assert_close(compile(model, None, (INDICES,))(INDICES), model(INDICES))
