"""Scores of units summed in pieces equal the sums over whole weights."""

import numpy as np
import pytest
import torch
from torch import nn

from graphprune.analysis import analyze
from graphprune.criteria import L1, L2, base
from graphprune.tracing.trace import trace
from graphprune.units import importance


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_scores_do_not_depend_on_the_size_of_the_pieces(monkeypatch: pytest.MonkeyPatch, piece: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    analysis = analyze(trace(model, (torch.randn(1, 3, 6, 6),)))
    monkeypatch.setattr(base, "PIECE", piece)
    scores = importance.unit_scores(analysis, L1(), analysis.dimensions)
    first, second = model[0], model[2]
    expected = first.weight.abs().sum((1, 2, 3)) + first.bias.abs() + second.weight.abs().sum((0, 2, 3))
    np.testing.assert_allclose(scores["0.weight:0"], expected.detach().numpy(), rtol=1e-6)
    last = second.weight.abs().sum((1, 2, 3)) + second.bias.abs() + model[4].weight.view(2, 4, 4).abs().sum((0, 2))
    np.testing.assert_allclose(scores["2.weight:0"], last.detach().numpy(), rtol=1e-6)


def test_scores_of_half_precision_weights_are_summed_in_single_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 3)).bfloat16().eval()
    analysis = analyze(trace(model, (torch.randn(1, 300, dtype=torch.bfloat16),)))
    scores = importance.unit_scores(analysis, L2(), analysis.dimensions)
    first, second = model[0], model[2]
    squares = (
        first.weight.double().square().sum(1) + first.bias.double().square() + second.weight.double().square().sum(0)
    )
    np.testing.assert_allclose(scores["0.weight:0"], squares.sqrt().detach().numpy(), rtol=1e-6)
