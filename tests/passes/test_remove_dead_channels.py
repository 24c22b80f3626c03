"""RemoveDeadChannels: what it removes, what it must leave, and that outputs never change."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import graphprune as gp
from graphprune.graph import graph_info
from graphprune.passes import RemoveDeadChannels


def _run(model: nn.Module, x: torch.Tensor) -> tuple[torch.fx.GraphModule, dict]:
    model.eval()
    smaller = gp.prune(model, RemoveDeadChannels(), (x,))
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), model(x), rtol=1e-5, atol=1e-5)
    return smaller, graph_info(smaller).history[-1].summary


def _conv_net(padding: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=padding),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def test_filters_zeroed_by_torch_prune_disappear() -> None:
    model = _conv_net(padding=1)
    torch_prune.ln_structured(model[0], "weight", amount=4, n=2, dim=0)
    torch_prune.remove(model[0], "weight")
    with torch.no_grad():
        model[0].bias[(model[0].weight == 0).flatten(1).all(1)] = -1.0  # ReLU makes zero of it: padding is harmless
    smaller, summary = _run(model, torch.randn(2, 3, 8, 8))
    assert smaller.get_parameter("0.weight").shape == (4, 3, 3, 3)
    assert summary["dimensions"] == {"0.weight:0": [8, 4]}
    assert summary["folded_into_bias"] == []


def test_positive_constants_move_into_the_next_bias_without_padding() -> None:
    model = _conv_net(padding=0)
    with torch.no_grad():
        model[0].weight[2:5] = 0
        model[0].bias[2:5] = 0.7
    smaller, summary = _run(model, torch.randn(2, 3, 8, 8))
    assert smaller.get_parameter("0.weight").shape[0] == 5
    assert len(summary["folded_into_bias"]) == 1


def test_positive_constants_stay_where_padding_makes_them_uneven() -> None:
    model = _conv_net(padding=1)
    with torch.no_grad():
        model[0].weight[2:5] = 0
        model[0].bias[2:5] = 0.7
    smaller, _ = _run(model, torch.randn(2, 3, 8, 8))
    assert smaller.get_parameter("0.weight").shape[0] == 8


def test_channels_nobody_reads_disappear() -> None:
    model = _conv_net(padding=1)
    with torch.no_grad():
        model[2].weight[:, [0, 7]] = 0
    smaller, _ = _run(model, torch.randn(2, 3, 8, 8))
    assert smaller.get_parameter("0.weight").shape[0] == 6


def test_a_zero_batch_norm_scale_kills_a_channel_and_its_shift_is_folded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten()
    )
    with torch.no_grad():
        model[1].weight[:3] = 0
        model[1].bias[:3] = torch.tensor([-1.0, 0.5, 2.0])
    smaller, summary = _run(model, torch.randn(2, 3, 6, 6))
    assert smaller.get_parameter("0.weight").shape[0] == 5
    assert smaller.get_parameter("3.bias").shape == (4,)
    assert len(summary["folded_into_bias"]) == 1


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.branch = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


def test_a_residual_channel_goes_only_if_it_is_dead_in_both_branches() -> None:
    torch.manual_seed(0)
    model = _Residual()
    with torch.no_grad():
        model.stem.weight[:2] = 0
        model.branch.weight[1:4] = 0
    smaller, summary = _run(model, torch.randn(2, 3, 5, 5))
    assert smaller.get_parameter("stem.weight").shape[0] == 5  # channel 1 only
    assert smaller.get_parameter("branch.weight").shape[:2] == (5, 5)
    assert summary["folded_into_bias"]


def test_layer_norm_keeps_its_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[:3] = 0
    _, summary = _run(model, torch.randn(4, 5))
    assert "computes a statistic" in summary["skipped"]["0.weight:0"]


def test_a_dimension_that_is_dead_throughout_keeps_one_unit() -> None:
    model = _conv_net(padding=0)
    with torch.no_grad():
        model[0].weight.zero_()
    smaller, _ = _run(model, torch.randn(1, 3, 8, 8))
    assert smaller.get_parameter("0.weight").shape[0] == 1


def test_shared_bias_is_not_changed_for_the_other_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].bias = model[1].bias
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = 3.0
    smaller, _ = _run(model, torch.randn(4, 4))
    assert smaller.get_parameter("0.weight").shape[0] == 4


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
        x = torch.randn(2, 4)
    with pytest.raises(gp.PassError, match="meta device"):
        gp.prune(model, RemoveDeadChannels(), (x,))
