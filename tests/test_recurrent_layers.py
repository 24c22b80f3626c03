"""LSTM, GRU and RNN layers become a linear layer and one loop over the steps, with the same values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphprune.compiler import compile
from graphprune.graph import op_name
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.tracing.trace import trace


class Recurrent(nn.Module):
    """A recurrent layer that returns some of its results: outputs (0), last hidden state (1), last cell state (2)."""

    def __init__(self, layer, *results):
        super().__init__()
        self.layer, self.results = layer, results

    def forward(self, x, *states):
        outputs, last = self.layer(x, *([states] if len(states) == 2 else states))
        found = (outputs, *(last if isinstance(last, tuple) else (last,)))
        return tuple(found[i] for i in self.results)


# model, shapes of its inputs
CASES = {
    "lstm": (lambda: Recurrent(nn.LSTM(5, 19, 2, bidirectional=True, batch_first=True), 0, 1, 2), (5, 6, 5)),
    "lstm from a state": (lambda: Recurrent(nn.LSTM(5, 3, bias=False), 0, 2), (4, 1, 5), (1, 1, 3), (1, 1, 3)),
    "gru": (lambda: Recurrent(nn.GRU(5, 11, bidirectional=True), 0, 1), (6, 3, 5)),
    "gru without batch": (lambda: Recurrent(nn.GRU(5, 8, 2), 1), (6, 5)),
    "rnn": (lambda: Recurrent(nn.RNN(5, 9, nonlinearity="relu"), 0), (6, 2, 5)),
}


def _make(name):
    torch.manual_seed(0)
    make, *shapes = CASES[name]
    return make().eval(), tuple(torch.randn(shape) for shape in shapes)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize("name", CASES)
def test_values_stay(name):
    model, inputs = _make(name)
    gm = FuseEpilogues()(trace(model, inputs))
    names = {op_name(node) for node in gm.graph.nodes}
    assert {"fused_linear", "recurrence"} <= names and not names & {"lstm", "gru", "rnn_relu"}
    with torch.no_grad():
        torch.testing.assert_close(gm(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize("name", ["lstm", "lstm from a state", "gru", "rnn"])
def test_compiled_equals_torch(name):
    model, inputs = _make(name)
    compiled = compile(model, None, inputs)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)
    assert any(layer.kernel.startswith("recurrence_") and layer.reason for layer in compiled.report().layers)
