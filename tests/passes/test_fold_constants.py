"""FoldConstants: what does not depend on the inputs is computed once, and nothing else is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from graphprune.graph import op_name
from graphprune.passes.fold_constants import FoldConstants
from graphprune.tracing.trace import trace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        mask = torch.arange(6)[None] <= torch.arange(x.shape[0])[:, None]
        normalised = self.weight / self.weight.norm(dim=1, keepdim=True)
        return F.linear(x, normalised).masked_fill(~mask, 0.0), torch.arange(3)


def _ops(gm):
    return [op_name(node) for node in gm.graph.nodes if node.op == "call_function"]


def test_masks_and_computed_weights_become_buffers():
    model, x = Net().eval(), torch.randn(5, 4)
    folded = FoldConstants()(trace(model, (x,)))
    assert _ops(folded) == ["linear", "masked_fill", "arange"]
    assert all(torch.equal(a, b) for a, b in zip(folded(x), model(x)))


def test_large_values_and_random_ones_stay():
    model, x = Net().eval(), torch.randn(5, 4)
    assert "div" in _ops(FoldConstants(max_elements=10)(trace(model, (x,))))

    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand(5, 4)

    assert "rand" in _ops(FoldConstants()(trace(Noise(), (x,))))
