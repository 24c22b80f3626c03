"""Free selections: readers of a shared value keep channels of their own, layers rotary pairs of their own."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.analysis import analyze
from graphprune.errors import MaskError
from graphprune.graph import graph_info, op_name
from graphprune.interpret import run_masked
from graphprune.ops import SELECT_CHANNELS
from graphprune.passes import FreeSelections, PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.pruning_models import inputs, traced
from tests.random_models import random_model
from tests.zoo.check import relative_error
from tests.zoo.models import make

EAGER = FreeSelections(keep=0.01)
"""Inserts selections in toy models too, whose few channels never pay for a gather otherwise."""


def random_plan(found, seed):
    rng = np.random.default_rng(seed)
    return found.plan({d.name: rng.permutation(d.size) < rng.integers(1, d.size + 1) for d in found.dimensions})


def check(gm, found, plan, *args, tolerance=1e-5, **kwargs):
    small = shrink(gm, plan, analysis=found)
    with torch.no_grad():
        expected = run_masked(gm, found.typing, found.masks(plan), *args, **kwargs)
        assert relative_error(small(*args, **kwargs), expected) <= tolerance, plan
    assert all(node.target is not SELECT_CHANNELS for node in small.graph.nodes)
    return small


def test_each_reader_keeps_channels_of_its_own():
    gm = EAGER(traced("residual"))
    assert graph_info(gm).history[-1].summary["inserted"]
    found = analyze(gm)
    stem = next(d for d in found.dimensions if d.name == "stem.weight:0")
    reader = next(d for d in found.dimensions if d.members == (("conv1.weight", 1),))
    kept = np.arange(8) % 2 == 0
    plan = found.plan({stem.name: np.arange(8) < 3, reader.name: kept, "head.weight:1": np.arange(8) < 3})
    stream = plan.choice(stem.name)
    assert stream is not None and stream.keep.tolist() == [0, 1, 2, 4, 6], "the stream keeps the union"
    assert "2 free selections gather" in str(plan)
    small = check(gm, found, plan, *inputs("residual"))
    (gather,) = [node for node in small.graph.nodes if op_name(node) == "index_select"]
    index = small.get_buffer(str(gather.args[2].target))
    assert index.tolist() == [0, 2, 3, 4]
    assert small.get_parameter("conv1.weight").shape[1] == 4
    torch.export.export(small, inputs("residual"))


def test_a_plan_that_breaks_the_union_is_refused():
    gm = EAGER(traced("residual"))
    found = analyze(gm)
    reader = next(d for d in found.dimensions if d.members == (("conv1.weight", 1),))
    few = np.arange(8) < 2
    plan = found.plan({"stem.weight:0": np.arange(8) < 4, reader.name: few, "head.weight:1": few})
    (stem,) = [choice for choice in plan.choices if choice.name == "stem.weight:0"]
    broken = dataclasses.replace(plan, choices=(dataclasses.replace(stem, keep=np.array([3, 4])), *plan.choices[1:]))
    with pytest.raises(MaskError, match="selects channels that are removed"):
        shrink(gm, broken, analysis=found)


def test_selections_of_everything_vanish():
    gm = EAGER(traced("residual"))
    small = shrink(gm, analyze(gm).plan({}))
    assert [node.target for node in small.graph.nodes] == [node.target for node in traced("residual").graph.nodes]


def test_consecutive_channels_are_sliced():
    gm = EAGER(traced("residual"))
    found = analyze(gm)
    reader = next(d for d in found.dimensions if d.members == (("conv1.weight", 1),))
    small = check(gm, found, found.plan({reader.name: (np.arange(8) > 1) & (np.arange(8) < 6)}), *inputs("residual"))
    assert "slice" in {op_name(node) for node in small.graph.nodes}
    assert "index_select" not in {op_name(node) for node in small.graph.nodes}


def test_a_gather_that_does_not_pay_is_not_inserted():
    gm = FreeSelections(keep=0.99)(traced("residual"))
    summary = graph_info(gm).history[-1].summary
    assert not summary["inserted"] and all("do not pay" in reason for reason in summary["refused"].values())
    assert summary["refused"]


def test_each_layer_keeps_rotary_pairs_of_its_own():
    example = make("hf/llama")
    gm = FreeSelections(streams=False)(trace(example.model, (), example.kwargs))
    found = analyze(gm)
    first, second = [d for d in found.dimensions if d.size == 3 and d.kind == "head_dim"]
    paths = [{path for path, _ in d.members} for d in (first, second)]
    for layer, touched in enumerate(paths):
        assert touched == {f"model.layers.{layer}.self_attn.{name}_proj.weight" for name in "qk"}
    plan = found.plan({first.name: np.array([1, 0, 1], bool), second.name: np.array([0, 1, 0], bool)})
    small = check(gm, found, plan, **example.kwargs)
    torch.export.export(small, (), example.kwargs)
    shapes = [small.get_parameter(f"model.layers.{i}.self_attn.q_proj.weight").shape[0] for i in (0, 1)]
    assert shapes == [8 * 4, 8 * 2]


@pytest.mark.parametrize("name", ["hf/llama", "hf/bert", "hf/gpt2", "torchvision/resnet18"])
def test_real_models_equal_the_reference(name):
    example = make(name)
    gm = FreeSelections()(trace(example.model, example.args, example.kwargs))
    found = analyze(gm)
    assert found.typing.subsets
    plan = PruneChannels(ratio=0.5, kinds=("channel", "neuron", "embedding")).plan(gm, analysis=found)
    small = check(gm, found, plan, *example.args, **example.kwargs)
    torch.export.export(small, example.args, example.kwargs)


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_random_models(seed):
    model, x = random_model(seed)
    gm = EAGER(trace(model, (x,)))
    found = analyze(gm)
    check(gm, found, random_plan(found, seed), x, tolerance=1e-9)
