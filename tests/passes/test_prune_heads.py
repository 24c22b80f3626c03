"""PruneHeads: whole heads, key-value groups, and nothing else."""

import pytest
import torch

from graphprune.analysis import analyze
from graphprune.errors import PassError
from graphprune.interpret import run_masked
from graphprune.pass_spec import parse_pass
from graphprune.passes import PruneHeads
from graphprune.tracing.trace import trace
from tests.pruning_models import Attention, analysis, inputs, traced


def test_heads_leave_with_their_part_of_every_projection():
    small = PruneHeads(ratio=0.4)(traced("attention"))
    shapes = {name: tuple(value.shape) for name, value in small.named_parameters()}
    assert shapes["qkv.weight"] == (3 * 2 * 4, 10) and shapes["qkv.bias"] == (24,)
    assert shapes["out.weight"] == (10, 8)
    assert shapes["up.weight"] == (16, 10)


def test_key_value_groups_leave_with_their_queries():
    small = PruneHeads(ratio=0.5)(traced("grouped"))
    shapes = {name: tuple(value.shape) for name, value in small.named_parameters()}
    assert shapes["q.weight"] == (12, 8) and shapes["k.weight"] == (4, 8) and shapes["v.weight"] == (4, 8)


@pytest.mark.parametrize("name", ["attention", "grouped"])
def test_the_result_equals_the_masked_original(name):
    plan = PruneHeads(ratio=0.5).plan(traced(name))
    found = analysis(name)
    expected = run_masked(found.gm, found.typing, found.masks(plan), *inputs(name))
    torch.testing.assert_close(PruneHeads(ratio=0.5)(traced(name))(*inputs(name)), expected)


def test_the_least_important_head_goes():
    net = Attention().eval()
    with torch.no_grad():
        net.qkv.weight.view(3, 3, 4, 10)[:, 1] *= 0.01
        net.qkv.bias.view(3, 3, 4)[:, 1] *= 0.01
        net.out.weight.view(10, 3, 4)[:, 1] *= 0.01
    (choice,) = PruneHeads(ratio=0.34).plan(trace(net, inputs("attention"))).choices
    assert choice.kind == "head" and choice.keep.tolist() == [0, 2]


def test_queries_of_a_group_on_request():
    plan = PruneHeads(ratio=0.5, kinds=("query_head",)).plan(traced("grouped"))
    assert {c.kind: (c.size, len(c.keep)) for c in plan.choices} == {"query_head": (3, 2)}


def test_a_model_without_heads_is_left_alone():
    plan = PruneHeads(ratio=0.5).plan(traced("residual"))
    assert plan.choices == () and plan.cost["parameters"][0] == plan.cost["parameters"][1]
    assert len(analyze(PruneHeads()(traced("residual"))).dimensions) == 2


def test_a_budget():
    plan = PruneHeads(parameters=0.7).plan(traced("attention"))
    before, after = plan.cost["parameters"]
    assert after <= 0.7 * before
    with pytest.raises(PassError, match="cannot be met"):
        PruneHeads(parameters=0.1).plan(traced("attention"))


def test_the_spelling_reads_back():
    prune = PruneHeads(ratio=0.25, min_keep=0.5)
    assert prune.spec() == "prune-heads{ratio=0.25,min_keep=0.5}"
    parsed = parse_pass(prune.spec())
    assert parsed == prune
