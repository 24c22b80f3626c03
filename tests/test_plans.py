"""Plans as plain data: they print, differ, save, load, and refuse graphs they were not made for."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import graphprune
from graphprune.errors import EmptyAxisError, GraphPruneError, MaskError
from graphprune.passes import PruneChannels, PruneHeads
from graphprune.plans import Plan
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.pruning_models import analysis, inputs, model, traced

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def plan():
    return PruneChannels(ratio=0.5).plan(traced("residual"))


@pytest.mark.parametrize(
    ("name", "prune_pass"),
    [
        ("residual", PruneChannels(ratio=0.3)),
        ("attention", PruneChannels(ratio=0.3, round_to=4, kinds=("embedding", "neuron", "head_dim"))),
        ("grouped", PruneHeads(ratio=0.5)),
    ],
)
def test_text_is_as_recorded(name, prune_pass):
    """To record anew after a deliberate change, write ``str(plan)`` to the file."""
    text = str(prune_pass.plan(traced(name))) + "\n\n" + str(analysis(name)) + "\n"
    # the fingerprint covers names of torch's ops, which differ between versions
    text = "\n".join(["Plan for graph ..." if line.startswith("Plan for") else line for line in text.split("\n")])
    assert text == (GOLDEN / f"plan_{name}.txt").read_text()


def test_requested_and_removed_are_both_printed():
    text = str(PruneChannels(ratio=0.4, round_to=4).plan(traced("residual")))
    assert "removes 4 (requested 3)" in text or "removes 0 (requested 3)" in text, text


def test_save_and_load(plan, tmp_path):
    plan.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    assert loaded == plan
    assert str(loaded) == str(plan)
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]


def test_weight_masks_travel(plan, tmp_path):
    mask = torch.rand(6, 8, 3, 3) > 0.5
    with_masks = dataclasses.replace(plan, weight_masks={"conv1.weight": mask})
    with_masks.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    assert loaded.weight_masks.keys() == {"conv1.weight"} and torch.equal(loaded.weight_masks["conv1.weight"], mask)
    assert "conv1.weight: weight masks differ" in plan.diff(loaded)
    assert "of weights zeroed" in str(loaded)


def test_a_loaded_plan_fits_a_fresh_trace(plan, tmp_path):
    plan.save(tmp_path / "plan")
    fresh = trace(model("residual"), inputs("residual"))
    small = shrink(fresh, Plan.load(tmp_path / "plan"))
    torch.testing.assert_close(small(*inputs("residual")), shrink(traced("residual"), plan)(*inputs("residual")))


def test_prune_takes_a_plan(plan):
    small = graphprune.prune(model("residual"), plan, inputs("residual"))
    assert small.get_parameter("conv1.weight").shape == (3, 4, 3, 3)


def test_diff(plan):
    other = PruneChannels(ratio=0.25).plan(traced("residual"))
    text = plan.diff(other)
    assert "stem.weight:0: keeps 4 of 8 here, 6 of 8 there" in text
    assert plan.diff(plan) == ""
    nothing = analysis("residual").plan({})
    assert "keeps 4 of 8 here, everything there" in plan.diff(nothing)
    assert plan != other and plan == PruneChannels(ratio=0.5).plan(traced("residual"))


def test_another_graph_is_refused(plan):
    with pytest.raises(MaskError) as caught:
        shrink(traced("attention"), plan)
    assert plan.fingerprint[:12] in str(caught.value)
    assert analysis("attention").fingerprint[:12] in str(caught.value)


def test_explanations_come_with_the_plan(plan, tmp_path):
    assert "conv2.weight:1" in plan.explain("conv1.weight", 0)
    plan.save(tmp_path / "plan")
    with pytest.raises(GraphPruneError, match="not attached to a graph"):
        Plan.load(tmp_path / "plan").explain("conv1.weight", 0)


def edited(plan, **changes):
    return dataclasses.replace(plan, choices=(dataclasses.replace(plan.choices[0], **changes), *plan.choices[1:]))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "conv9.weight:0"}, MaskError, "no dimension 'conv9.weight:0'"),
        ({"size": 9}, MaskError, "of size 9"),
        ({"keep": np.array([0, 8])}, MaskError, "exceed its size 8"),
        ({"keep": np.array([-1, 3])}, MaskError, "exceed its size 8"),
        ({"keep": np.array([], np.int64)}, EmptyAxisError, "without elements"),
    ],
)
def test_an_edited_plan_is_refused(plan, changes, error, message):
    with pytest.raises(error) as caught:
        shrink(traced("residual"), edited(plan, **changes))
    assert message in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(MaskError, match="is not a graphprune plan"):
        Plan.load(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"not a plan", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_corrupt_file(tmp_path, content):
    (tmp_path / "plan").write_bytes(content)
    with pytest.raises(MaskError, match="is not a graphprune plan"):
        Plan.load(tmp_path / "plan")


def test_a_truncated_file(plan, tmp_path):
    plan.save(tmp_path / "plan")
    content = (tmp_path / "plan").read_bytes()
    (tmp_path / "plan").write_bytes(content[:-5])
    with pytest.raises(MaskError, match="is not a graphprune plan"):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "is not a graphprune plan"),
        ("{}", "is not a graphprune plan"),
        (json.dumps({"format_version": 99}), "plan format 99"),
        (
            json.dumps({"format_version": 1, "fingerprint": "x", "choices": [{"name": "gone"}]}),
            "is not a graphprune plan",
        ),
    ],
)
def test_a_safetensors_file_that_is_no_plan(tmp_path, header, message):
    save_file({"weight": torch.zeros(2)}, tmp_path / "plan", metadata={"graphprune.plan": header})
    with pytest.raises(MaskError, match=message):
        Plan.load(tmp_path / "plan")
