"""Counts of parameters and multiply-accumulates, against torch's own counter."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graphprune.analysis import analyze
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.pruning_models import inputs, model, traced
from tests.random_models import random_model


class Contractions(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.groups = nn.Conv1d(8, 12, 3, groups=2)
        self.back = nn.ConvTranspose1d(12, 8, 2)
        self.weight = nn.Parameter(torch.randn(8, 5))
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        x = self.back(self.groups(self.up(x).transpose(1, 2)))
        x = torch.einsum("nct,cd->ntd", x, self.weight)
        return self.out(torch.einsum("...td,...sd->...ts", x, x))


def counted(gm, *example):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        gm(*example)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["residual", "attention", "grouped"])
def test_known_models(name):
    plan = PruneChannels(ratio=0.5, kinds=("channel", "neuron", "embedding", "head", "kv_group", "head_dim")).plan(
        traced(name)
    )
    small = shrink(traced(name), plan)
    before, after = plan.cost["parameters"]
    assert before == sum(p.numel() for p in model(name).parameters())
    assert after == sum(p.numel() for p in small.parameters())
    assert plan.cost["macs"] == (counted(traced(name), *inputs(name)), counted(small, *inputs(name)))


def test_contractions():
    x = torch.randn(2, 7, 6)
    gm = trace(Contractions(), (x,))
    plan = PruneChannels(ratio=0.4).plan(gm)
    assert plan.cost["macs"][0] == counted(gm, x)
    assert plan.cost["macs"][1] == analyze(shrink(gm, plan)).cost()["macs"] == counted(shrink(gm, plan), x)


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_predicts_the_cost_of_the_smaller_graph(seed):
    net, x = random_model(seed, length=4)
    gm = trace(net, (x,))
    plan = PruneChannels(ratio=0.4).plan(gm)
    assert analyze(shrink(gm, plan)).cost() == {name: after for name, (_, after) in plan.cost.items()}
