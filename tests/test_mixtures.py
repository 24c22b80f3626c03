"""Mixtures of experts, written in the ways people write them: experts and all other dimensions go, one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphprune.analysis import Analysis, analyze
from graphprune.interpret import run_masked
from graphprune.passes import PruneChannels, PruneExperts
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from graphprune.units.kinds import EXPERT, KINDS
from tests.random_models import redraw
from tests.zoo.check import relative_error
from tests.zoo.transformers_models import causal_language_model

EXPERTS, WIDTH, HIDDEN = 6, 8, 5


class Experts(nn.Module):
    """A router and the weights of all experts, in stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 3)
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.zeros(EXPERTS, WIDTH, HIDDEN))
        self.down = nn.Parameter(torch.zeros(EXPERTS, HIDDEN, WIDTH))
        self.bias = nn.Parameter(torch.zeros(EXPERTS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.mix(x))

    def mix(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Soft(Experts):
    """Every token goes to every expert."""

    def mix(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("td,edh->teh", x, self.up).relu()
        results = torch.einsum("teh,ehd->ted", hidden, self.down) + self.bias
        return torch.einsum("te,ted->td", self.router(x).softmax(-1), results)


class Masked(Soft):
    """Every expert computes; gates that were not chosen are zero."""

    def mix(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
        gates = (functional.one_hot(chosen, EXPERTS) * weights.unsqueeze(-1)).sum(1)
        hidden = torch.einsum("td,edh->teh", x, self.up).relu()
        return torch.einsum("te,teh,ehd->td", gates, hidden, self.down) + gates @ self.bias


class Scattered(Soft):
    """As Masked, with the gates scattered into zeros."""

    def mix(self, x: Tensor) -> Tensor:
        probabilities = self.router(x).softmax(-1)
        weights, chosen = probabilities.topk(2, dim=-1)
        gates = torch.zeros_like(probabilities).scatter(1, chosen, weights)
        hidden = torch.einsum("td,edh->teh", x, self.up).relu()
        return torch.einsum("te,teh,ehd->td", gates, hidden, self.down)


class Switch(Experts):
    """Every token goes to the one expert with the largest gate; its weights are looked up."""

    def mix(self, x: Tensor) -> Tensor:
        gate, chosen = self.router(x).softmax(-1).max(dim=-1)
        hidden = torch.bmm(x.unsqueeze(1), self.up[chosen]).relu()
        return (torch.bmm(hidden, self.down[chosen]).squeeze(1) + self.bias[chosen]) * gate.unsqueeze(-1)


class SwitchByNumber(Experts):
    """As Switch, with the weights of the chosen picked by argmax and index_select, and its gate by gather."""

    def mix(self, x: Tensor) -> Tensor:
        probabilities = self.router(x).softmax(-1)
        chosen = probabilities.argmax(-1)
        hidden = torch.einsum("td,tdh->th", x, self.up.index_select(0, chosen)).relu()
        result = torch.einsum("th,thd->td", hidden, self.down.index_select(0, chosen))
        return result * probabilities.gather(1, chosen.unsqueeze(1))


class SwitchInLoop(Experts):
    """As Switch, in a loop over the experts that masks the tokens of the others."""

    def mix(self, x: Tensor) -> Tensor:
        gate, chosen = self.router(x).softmax(-1).max(dim=-1)
        result = torch.zeros_like(x)
        for i in range(EXPERTS):
            y = (x @ self.up[i]).relu() @ self.down[i]
            result = result + y * (gate * (chosen == i)).unsqueeze(-1)
        return result


FOLLOWED = [Soft, Masked, Scattered, Switch, SwitchByNumber]


def checked(gm, found: Analysis, plan, *args, **kwargs):
    """Shrink and compare with the masked original."""
    small = shrink(gm, plan, analysis=found)
    with torch.no_grad():
        actual = small(*args, **kwargs)
        expected = run_masked(gm, found.typing, found.masks(plan), *args, **kwargs)
    assert relative_error(actual, expected) <= 1e-5, plan
    return small


def traced(mixture: type[Experts]):
    torch.manual_seed(0)
    model, x = mixture().eval(), torch.randn(9, 4)
    redraw(model)
    return trace(model, (x,)), x


@pytest.mark.parametrize("mixture", FOLLOWED)
def test_experts_leave_with_their_rows_of_the_router(mixture):
    gm, x = traced(mixture)
    found = analyze(gm)
    (experts,) = [d for d in found.dimensions if d.size == EXPERTS]
    assert {path for path, _ in experts.members} >= {"router.weight", "router.bias", "up", "down"}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        keep = {experts.name: rng.permutation(EXPERTS) < rng.integers(2, EXPERTS)}
        small = checked(gm, found, found.plan(keep), x)
        assert small.get_parameter("up").shape[0] == small.get_parameter("router.weight").shape[0] < EXPERTS
        torch.export.export(small, (x,))


@pytest.mark.parametrize("mixture", [*FOLLOWED, SwitchInLoop])
def test_everything_goes_together(mixture):
    gm, x = traced(mixture)
    found = analyze(gm)
    assert not found.unknown_ops
    assert {WIDTH, HIDDEN} <= {d.size for d in found.dimensions}
    small = checked(gm, found, PruneChannels(ratio=0.5, kinds=KINDS).plan(gm, analysis=found), x)
    torch.export.export(small, (x,))


@pytest.mark.parametrize("mixture", [Masked, Scattered, Switch, SwitchByNumber])
def test_who_chooses_by_number_says_so(mixture):
    gm, _ = traced(mixture)
    (experts,) = [d for d in analyze(gm).dimensions if d.kind == EXPERT]
    assert experts.size == EXPERTS


# ---------------------------------------------------------------------------------------------------- real ones

SIZES = {"head_dim": 12, "moe_intermediate_size": 20, "num_experts_per_tok": 2}
DEEPSEEK = {
    **SIZES,
    "num_key_value_heads": 8,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 6,
    "v_head_dim": 10,
    "first_k_dense_replace": 1,
    "head_dim": 8,
}
MODELS = {
    "Mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "Qwen2Moe": {**SIZES, "num_experts": 6, "shared_expert_intermediate_size": 28},
    "Olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "DeepseekV2": {**DEEPSEEK, "n_group": None, "topk_group": None, "topk_method": "greedy"},
    "DeepseekV3": {**DEEPSEEK, "n_group": 2, "topk_group": 1},
}


@pytest.mark.parametrize("implementation", ["batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", MODELS)
def test_language_models(family, implementation):
    torch.manual_seed(0)
    model, _, kwargs = causal_language_model(family, **MODELS[family], experts_implementation=implementation)
    redraw(model.eval())
    gm = trace(model, (), kwargs)
    found = analyze(gm)
    plan = PruneExperts(ratio=0.5).plan(gm, analysis=found)
    removals = [choice for choice in plan.choices if choice.removed]
    assert removals and all(choice.removed == choice.kept for choice in removals)
    checked(gm, found, plan, **kwargs)
    small = checked(gm, found, PruneChannels(ratio=0.5, kinds=KINDS).plan(gm, analysis=found), **kwargs)
    torch.export.export(small, (), kwargs)
