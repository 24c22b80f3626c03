"""PruneChannels: ratios, budgets, limits, selections and criteria."""

import numpy as np
import pytest
import torch
from torch import nn

import graphprune
from graphprune.analysis import analyze
from graphprune.criteria import L1, L2, BNScale
from graphprune.errors import PassError
from graphprune.graph import graph_info
from graphprune.pass_spec import parse_pass
from graphprune.passes import PruneChannels
from graphprune.tracing.trace import trace
from tests.pruning_models import Attention, ResidualNet, analysis, inputs, model, traced


def sizes(gm):
    return {d.name: d.size for d in analyze(gm).dimensions}


# ------------------------------------------------------------------------------------------------------ ratios


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.7])
def test_a_ratio_is_removed_from_every_dimension(ratio):
    small = PruneChannels(ratio=ratio)(traced("residual"))
    assert sizes(small) == {"stem.weight:0": 8 - int(8 * ratio), "conv1.weight:0": 6 - int(6 * ratio)}
    assert small(*inputs("residual")).shape == (2, 5)


def test_kept_counts_are_rounded_up():
    small = PruneChannels(ratio=0.6, round_to=4)(traced("residual"))
    assert sizes(small) == {"stem.weight:0": 4, "conv1.weight:0": 4}


def test_min_keep():
    small = PruneChannels(ratio=0.9, min_keep=0.5)(traced("residual"))
    assert sizes(small) == {"stem.weight:0": 4, "conv1.weight:0": 3}


def test_something_is_always_kept():
    small = PruneChannels(ratio=0.999)(traced("residual"))
    assert small.get_parameter("conv1.weight").shape == (1, 1, 3, 3)
    assert torch.isfinite(small(*inputs("residual"))).all()


def test_dimension_ratio():
    prune = PruneChannels(ratio=0.5, dimension_ratio={"conv1.*": 0.0, "stem.*": 0.25})
    assert {c.name: len(c.keep) for c in prune.plan(traced("residual")).choices} == {}
    prune = PruneChannels(ratio=0.5, dimension_ratio={"norm1.*": 0.0, "stem.*": 0.25})
    assert {c.name: len(c.keep) for c in prune.plan(traced("residual")).choices} == {"stem.weight:0": 6}


def test_the_input_graph_stays():
    before = traced("residual").code
    PruneChannels(ratio=0.5)(traced("residual"))
    assert traced("residual").code == before


# ------------------------------------------------------------------------------------------------------ what is removed


def test_the_largest_filters_are_kept():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 6, bias=False), nn.Linear(6, 2, bias=False)
            with torch.no_grad():
                self.first.weight.copy_(torch.tensor([3.0, 1, 5, 0, 4, 2])[:, None].expand(6, 2))
                self.second.weight.fill_(1)

        def forward(self, x):
            return self.second(self.first(x))

    gm = trace(Two(), (torch.randn(1, 2),))
    for criterion in (L1(), L2()):
        (choice,) = PruneChannels(ratio=0.5, criterion=criterion).plan(gm).choices
        assert choice.keep.tolist() == [0, 2, 4]


def test_scores_add_up_over_everything_that_leaves():
    """A channel of small weights that are read by large ones is worth keeping."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
            with torch.no_grad():
                self.first.weight.copy_(torch.tensor([[1.0], [2.0]]))
                self.second.weight.copy_(torch.tensor([[9.0, 1.0]]))

        def forward(self, x):
            return self.second(self.first(x))

    (choice,) = PruneChannels(ratio=0.5).plan(trace(Two(), (torch.randn(1, 1),))).choices
    assert choice.keep.tolist() == [0]


def test_batch_norm_scales_leave_other_dimensions_alone():
    gm = trace(Attention(), inputs("attention"))
    assert PruneChannels(ratio=0.5, criterion=BNScale()).plan(gm).choices == ()
    (stream, hidden) = PruneChannels(ratio=0.5, criterion=BNScale()).plan(traced("residual")).choices
    weight = traced("residual").get_parameter("norm1.weight").detach().abs().numpy()
    assert hidden.keep.tolist() == sorted(np.argsort(-weight)[:3].tolist())
    assert stream.name == "stem.weight:0"


def test_untouched_dimensions_are_reported():
    small = PruneChannels(ratio=0.5, criterion=BNScale())(trace(Attention().eval(), inputs("attention")))
    summary = graph_info(small).history[-1].summary
    assert set(summary["untouched"]) == {"qkv.weight:1", "up.weight:0"}
    assert summary["cost"]["parameters"][0] == summary["cost"]["parameters"][1]


# ------------------------------------------------------------------------------------------------------ selections


def test_include_and_ignore():
    def planned(**options):
        return {c.name for c in PruneChannels(**options).plan(traced("residual")).choices}

    assert planned(include=("conv1.*",)) == {"stem.weight:0", "conv1.weight:0"}, "conv1.weight reads the stream"
    assert planned(include=("norm1.*",)) == {"conv1.weight:0"}
    assert planned(ignore=("norm1.*",)) == {"stem.weight:0"}
    assert planned(include=("*norm*",), ignore=("stem*",)) == {"conv1.weight:0"}


def test_patterns_match_titles_and_modules():
    def planned(**options):
        return {c.title: len(c.keep) for c in PruneChannels(ratio=0.5, **options).plan(traced("residual")).choices}

    assert planned(include=("norm1",)) == {"conv1 channels (6)": 3}
    assert planned(include=("*residual stream*",)) == planned(include=("residual stream (8)",))
    assert planned(ignore=("residual stream",)) == {"conv1 channels (6)": 3}
    assert planned(dimension_ratio={"* stream": 0.25}) == {"residual stream (8)": 6, "conv1 channels (6)": 3}


def test_a_plan_says_what_patterns_did():
    options = {"ignore": ("stem",), "dimension_ratio": {"norm1": 0.2}}
    text = str(PruneChannels(**options).plan(traced("residual")))
    assert "note: ratio 0.2 for norm1: conv1 channels (6)" in text
    assert "note: left alone by include and ignore: residual stream (8)" in text


def test_a_pattern_that_matches_nothing_names_close_ones():
    with pytest.raises(PassError, match="'residual streem' matches no") as caught:
        PruneChannels(ignore=("residual streem",)).plan(traced("residual"))
    assert "'residual stream'" in str(caught.value.hint)
    with pytest.raises(PassError) as caught:
        PruneChannels(ignore=("cnov1.*",)).plan(traced("residual"))
    assert "'conv1'" in str(caught.value.hint)


def test_kinds():
    def planned(*kinds):
        return {c.name: len(c.keep) for c in PruneChannels(ratio=0.5, kinds=kinds).plan(traced("attention")).choices}

    assert planned("embedding") == {"qkv.weight:1": 5}
    assert planned("neuron") == {"up.weight:0": 8}
    assert planned("channel") == planned("filter") == {}
    assert planned("head_dim") == {"qkv.weight:0.2": 2}
    assert planned("head", "head_dim") == {"qkv.weight:0.1": 2, "qkv.weight:0.2": 2}


# ------------------------------------------------------------------------------------------------------ budgets


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize(("what", "limit"), [("parameters", 0.5), ("macs", 0.4), ("parameters", 600), ("macs", 70_000)])
def test_budgets_are_met_and_tight(scope, what, limit):
    gm = trace(ResidualNet(stream=32, hidden=24), inputs("residual"))
    plan = PruneChannels(scope=scope, **{what: limit}).plan(gm)
    before, after = plan.cost[what]
    budget = limit * before if isinstance(limit, float) else limit
    assert after <= budget
    # one more unit in any one dimension would exceed the budget, or only just fit because all sizes move together
    found = analyze(gm)
    more = {d.name: min(d.size, len(plan.choice(d.name).keep) + 2) for d in found.dimensions if plan.choice(d.name)}
    larger = found.plan({name: np.arange(found_size(found, name)) < count for name, count in more.items()})
    assert larger.cost[what][1] > budget


def found_size(found, name):
    return next(d.size for d in found.dimensions if d.name == name)


def test_a_budget_that_is_met_already_removes_nothing():
    assert all(c.removed == 0 for c in PruneChannels(parameters=1.0).plan(traced("residual")).choices)


def test_a_budget_out_of_reach():
    with pytest.raises(PassError) as caught:
        PruneChannels(parameters=10).plan(traced("residual"))
    assert "the budget of 10 parameters cannot be met: the least reachable is" in str(caught.value)


def test_global_scope_takes_units_where_they_matter_least():
    net = ResidualNet().eval()
    with torch.no_grad():
        net.conv1.weight[:4] *= 1e-3
        net.norm1.weight[:4] = 0
        net.norm1.bias[:4] = 0
        net.conv2.weight[:, :4] *= 1e-3
    plan = PruneChannels(ratio=4 / 14, scope="global").plan(trace(net, inputs("residual")))
    assert {c.name: c.keep.tolist() for c in plan.choices if c.removed} == {"conv1.weight:0": [4, 5]}


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "ratio 1.0 is not in [0, 1)"),
        ({"ratio": -0.1}, "ratio -0.1"),
        ({"kinds": ("chanel",)}, "unknown kinds ['chanel']"),
        ({"kinds": ()}, "kinds is empty"),
        ({"scope": "local"}, "unknown scope 'local'"),
        ({"round_to": 0}, "round_to 0"),
        ({"min_keep": 1.5}, "min_keep 1.5"),
        ({"parameters": 0.5, "macs": 0.5}, "not both"),
        ({"scope": "global", "dimension_ratio": {"*": 0.1}}, "dimension_ratio needs scope='uniform'"),
        ({"parameters": 0.5, "dimension_ratio": {"*": 0.1}}, "dimension_ratio"),
        ({"include": ("conv9.*",)}, "'conv9.*' matches no parameter"),
        ({"ignore": ("fc",)}, "'fc' matches no parameter"),
        ({"dimension_ratio": {"fc.weight": 0.1}}, "'fc.weight' matches no parameter"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(PassError) as caught:
        PruneChannels(**options)(traced("residual"))
    assert message in str(caught.value)


def test_weights_that_are_not_finite():
    net = model("residual")
    with torch.no_grad():
        net.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PassError, match="scores that are not finite"):
        PruneChannels()(trace(net, inputs("residual")))


@pytest.mark.parametrize(
    "prune",
    [
        PruneChannels(),
        PruneChannels(ratio=0.25, round_to=8, ignore=("head.*",)),
        PruneChannels(parameters=0.5, scope="global", min_keep=0.1),
        PruneChannels(macs=1000, kinds=("channel", "factor"), criterion=BNScale()),
        PruneChannels(dimension_ratio={"conv1.*": 0.1, "stem.*": 0.3}),
    ],
)
def test_the_spelling_reads_back(prune):
    parsed = parse_pass(prune.spec())
    assert parsed.spec() == prune.spec()
    assert type(parsed) is PruneChannels
    for name in ("ratio", "parameters", "macs", "scope", "round_to", "min_keep", "kinds", "ignore"):
        assert getattr(parsed, name) == getattr(prune, name), name
    assert dict(parsed.dimension_ratio) == dict(prune.dimension_ratio)


def test_the_front_door_records_history():
    small = graphprune.prune(model("residual"), PruneChannels(ratio=0.5), inputs("residual"))
    (record,) = graph_info(small).history
    assert record.spec == "prune-channels" and record.seconds >= 0
    assert record.summary["dimensions"] == {"stem.weight:0": [8, 4], "conv1.weight:0": [6, 3]}
    assert analysis("residual").fingerprint != analyze(small).fingerprint
