"""What analyze() finds in models that are known: dimensions, kinds, pins and explanations."""

import numpy as np
import pytest
import torch
from torch import nn

import graphprune
from graphprune.errors import EmptyAxisError, MaskError, PinnedAxisError
from tests.pruning_models import analysis


def found(name):
    return {d.name: (d.kind, d.size) for d in analysis(name).dimensions}


def test_a_residual_stream_is_one_dimension():
    assert found("residual") == {"stem.weight:0": ("channel", 8), "conv1.weight:0": ("channel", 6)}
    stream = analysis("residual").dimensions[0]
    assert set(stream.members) == {
        ("stem.weight", 0), ("stem_norm.weight", 0), ("stem_norm.bias", 0), ("conv1.weight", 1),
        ("conv2.weight", 0), ("norm2.weight", 0), ("norm2.bias", 0), ("head.weight", 1),
    }  # fmt: skip
    assert stream.statistics == ()


def test_a_fused_projection_is_a_product_of_heads_and_head_width():
    assert found("attention") == {
        "qkv.weight:1": ("embedding", 10),
        "qkv.weight:0.1": ("head", 3),
        "qkv.weight:0.2": ("head_dim", 4),
        "up.weight:0": ("neuron", 16),
    }
    stream = analysis("attention").dimensions[0]
    assert stream.statistics == ("layer_norm",)
    assert ("logits.weight", 1) in stream.members, "the name under which torch.export keeps the tied tensor"


def test_grouped_queries():
    kinds = {(kind, size) for kind, size in found("grouped").values()}
    assert kinds == {("kv_group", 2), ("query_head", 3), ("head_dim", 4)}


def test_queries_and_values_have_widths_of_their_own():
    widths = [d for d in analysis("grouped").dimensions if d.kind == "head_dim"]
    assert [{path.split(".")[0] for path, _ in d.members} for d in widths] == [{"q", "k"}, {"v", "out"}]


def test_pins_have_reasons():
    pins = {(path, d): reason for path, d, reason in analysis("residual").pins}
    assert pins["head.weight", 0] == "model output"
    assert pins["stem.weight", 1] == "model input"
    assert pins["stem.weight", 2] == "position in a convolution kernel"
    assert ("stem.weight", 0) not in pins


def test_text():
    text = str(analysis("attention"))
    assert text.startswith("4 dimensions")
    assert "qkv.weight:1" in text and "renormalised" in text
    assert "pinned: 1 parameter axes: looked up by value" in text


# ------------------------------------------------------------------------------------------------------ explanations


def test_explanation_of_what_goes_together():
    text = analysis("residual").explain("conv1.weight", 0)
    assert "conv1 channels (6), of kind channel" in text
    for other in ("norm1.weight:0", "norm1.bias:0", "conv2.weight:1"):
        assert other in text


def test_explanation_of_renormalisation():
    assert "renormalised at: layer_norm" in analysis("attention").explain("down.weight", 0)


def test_explanation_of_a_pin_names_the_op_and_the_line():
    text = analysis("attention").explain("logits.weight", 0)
    assert "cannot lose elements: looked up by value" in text
    assert "pinned at embedding" in text
    assert "pruning_models.py" in text and "self.embedding(ids)" in text


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scale = nn.Linear(4, 6), nn.Parameter(torch.ones(6))

    def forward(self, x):
        hidden = self.first(x)
        scaled = hidden * self.scale
        return scaled.cumprod(-1)


def test_explanation_of_a_pin_is_a_chain():
    found = graphprune.inspect(Chain(), (torch.zeros(2, 4),))
    lines = found.explain("first.weight", 0).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["tied", "tied", "pinned"], lines
    assert "self.first(x)" in lines[2]
    assert "hidden * self.scale" in lines[3]
    assert "scaled.cumprod(-1)" in lines[4]


class Absorbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x):
        gated = x * self.first
        return (gated.relu() * self.second).sum(-1)


def test_explanation_of_an_absorbed_pin_leads_to_its_origin():
    lines = graphprune.inspect(Absorbed(), (torch.zeros(3, 4),)).explain("second", 0).splitlines()
    assert "self.second" in lines[2] and "tied by" in lines[2]
    assert lines[-1] == "  pinned at x (x)"


@pytest.mark.parametrize(
    ("parameter", "axis", "message"),
    [
        ("conv1.wait", 0, "no parameter 'conv1.wait'"),
        ("nowhere.weight", 0, "no parameter 'nowhere.weight'"),
        ("conv1.weight", 4, "'conv1.weight' has 4 axes"),
    ],
)
def test_explaining_what_is_not_there(parameter, axis, message):
    with pytest.raises(MaskError) as caught:
        analysis("residual").explain(parameter, axis)
    assert message in str(caught.value)
    assert "hint" in str(caught.value)


# ------------------------------------------------------------------------------------------------------ plans from axes


def test_a_mask_on_a_parameter_axis_becomes_a_plan():
    mask = np.array([1, 1, 0, 1, 0, 1], bool)
    plan = analysis("residual").plan_from_axes({("norm1.bias", 0): mask})
    (choice,) = plan.choices
    assert choice.name == "conv1.weight:0" and choice.keep.tolist() == [0, 1, 3, 5]


def test_a_mask_on_a_product_removes_whole_heads():
    mask = np.ones((3, 3, 4), bool)
    mask[:, 1] = False
    plan = analysis("attention").plan_from_axes({("qkv.bias", 0): mask.ravel()})
    (choice,) = plan.choices
    assert choice.kind == "head" and choice.keep.tolist() == [0, 2]


def test_a_mask_that_tears_a_product_apart_is_refused():
    mask = np.ones(36, bool)
    mask[5] = False
    with pytest.raises(MaskError) as caught:
        analysis("attention").plan_from_axes({("qkv.bias", 0): mask})
    assert "qkv.bias:0" in str(caught.value) and "whole rows or columns" in str(caught.value)


def test_a_mask_on_a_pinned_axis_is_refused_with_the_chain():
    mask = np.array([1, 1, 1, 1, 0], bool)
    with pytest.raises(PinnedAxisError) as caught:
        analysis("residual").plan_from_axes({("head.weight", 0): mask})
    text = str(caught.value)
    assert "axis 0 of head.weight cannot lose elements: model output" in text
    assert "linear" in text and "self.head(" in text


def test_a_mask_that_empties_an_axis_is_refused():
    with pytest.raises(EmptyAxisError, match="removes all 6"):
        analysis("residual").plan_from_axes({("conv1.weight", 0): np.zeros(6, bool)})


def test_both_names_of_a_tied_parameter_are_understood() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.logits = nn.Linear(8, 11, bias=False)
            self.logits.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.logits(torch.tanh(self.embedding(ids)))

    tied = graphprune.inspect(Tied(), (torch.tensor([[1, 2, 3]]),))
    first, second = (tied.explain(name, 1) for name in ("embedding.weight", "logits.weight"))
    assert first == second
    assert "embedding width (8)" in first
