"""What users get wrong: a typed error that says what is wrong, where, and what to do."""

import numpy as np
import pytest
import torch
from torch import nn

import graphprune
from graphprune.analysis import analyze
from graphprune.errors import EmptyAxisError, MaskError, PassError, PinnedAxisError, TraceError
from graphprune.passes import FoldBatchNorm, PruneChannels
from graphprune.tracing.trace import trace
from tests.pruning_models import analysis, inputs, model


def message(caught):
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ tracing


def test_inputs_of_the_wrong_shape():
    with pytest.raises(TraceError) as caught:
        graphprune.prune(model("residual"), PruneChannels(), (torch.randn(2, 4, 8, 8),))
    assert "could not trace ResidualNet" in message(caught)
    assert "channels" in message(caught)
    assert "hint" in message(caught)


def test_inputs_that_are_no_tuple():
    with pytest.raises(TraceError) as caught:
        graphprune.prune(model("residual"), PruneChannels(), torch.randn(2, 3, 8, 8))
    assert "must be a tuple, got Tensor" in message(caught)
    assert "with the comma" in message(caught)


def test_keyword_inputs_in_place_of_positional_ones():
    with pytest.raises(TraceError, match=r"got dict\n.*example_kwargs"):
        graphprune.prune(model("residual"), PruneChannels(), {"x": torch.randn(2, 3, 8, 8)})


def test_missing_inputs():
    with pytest.raises(TraceError, match=r"could not trace ResidualNet[\s\S]*hint: *pass example_inputs=") as caught:
        graphprune.inspect(model("residual"))
    assert caught.value.source is None, "it is no line of the user's that is wrong"


def test_something_that_is_no_model():
    with pytest.raises(TraceError, match="cannot trace a function"):
        graphprune.prune(lambda x: x, PruneChannels(), (torch.zeros(1),))


class DependsOnData(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        if self.linear(x).sum() > 0:
            return x
        return self.linear(x)


def test_a_model_that_cannot_be_traced():
    net = DependsOnData().train()
    with pytest.raises(TraceError) as caught:
        graphprune.prune(net, PruneChannels(), (torch.randn(2, 4),))
    assert "could not trace DependsOnData" in message(caught)
    assert "data-dependent" in message(caught)
    assert caught.value.__cause__ is not None
    assert net.training, "a failed trace leaves the model's mode alone"


def test_a_graph_from_elsewhere():
    gm = torch.fx.symbolic_trace(model("residual"))
    with pytest.raises(TraceError, match="not traced by graphprune"):
        PruneChannels()(gm)


# ------------------------------------------------------------------------------------------------------ passes


@pytest.mark.parametrize("thing", [PruneChannels, [PruneChannels], 0.5, "prune-channels"])
def test_things_that_are_no_passes(thing):
    with pytest.raises(PassError) as caught:
        graphprune.prune(model("residual"), thing, inputs("residual"))
    assert isinstance(thing, list) or getattr(thing, "__name__", repr(thing)) in message(caught)


def test_a_pass_without_a_plan():
    with pytest.raises(PassError) as caught:
        graphprune.plan(model("residual"), FoldBatchNorm(), inputs("residual"))
    assert "FoldBatchNorm makes no plan" in message(caught)
    with pytest.raises(PassError, match=r"list makes no plan\n.*what one pass would remove"):
        graphprune.plan(model("residual"), [PruneChannels()], inputs("residual"))


# ------------------------------------------------------------------------------------------------------ masks


def test_an_unknown_dimension():
    with pytest.raises(MaskError) as caught:
        analysis("residual").plan({"conv7.weight:0": np.ones(6, bool)})
    assert "no dimension 'conv7.weight:0'" in message(caught) and "Analysis.dimensions" in message(caught)


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.ones(5, bool), "bool of shape (5,)"),
        (np.ones(6), "float64 of shape (6,)"),
        (np.ones((6, 1), bool), "bool of shape (6, 1)"),
        (np.array([0, 1, 2]), "int64 of shape (3,)"),
    ],
)
def test_a_mask_of_the_wrong_form(mask, got):
    with pytest.raises(MaskError) as caught:
        analysis("residual").plan({"conv1.weight:0": mask})
    assert "keep-mask of conv1.weight:0 must be a boolean array of length 6" in message(caught)
    assert got in message(caught)
    with pytest.raises(MaskError, match=r"axis 0 of norm1\.bias"):
        analysis("residual").plan_from_axes({("norm1.bias", 0): mask})


def test_a_mask_that_removes_everything():
    with pytest.raises(EmptyAxisError) as caught:
        analysis("residual").plan({"conv1.weight:0": np.zeros(6, bool)})
    assert "conv1.weight:0 removes all 6 elements" in message(caught)


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(2, 2)

    def forward(self, x):
        return self.second(self.first(x)[:, :2].relu())


def test_a_mask_that_empties_a_piece_of_an_axis():
    """Pieces are dimensions of their own, so a piece is emptied by its own mask."""
    gm = trace(Halves(), (torch.randn(4, 3),))
    found = analyze(gm)
    assert sorted(d.size for d in found.dimensions) == [2, 4]
    with pytest.raises(EmptyAxisError):
        found.plan_from_axes({("first.weight", 0): np.array([0, 0, 1, 1, 1, 1], bool)})


def test_a_pinned_axis():
    with pytest.raises(PinnedAxisError) as caught:
        analysis("residual").plan_from_axes({("stem.weight", 1): np.array([True, False, True])})
    text = message(caught)
    assert "axis 1 of stem.weight cannot lose elements: model input" in text
    assert "conv2d" in text and "self.stem(x)" in text


# ------------------------------------------------------------------------------------------------------ unknown ops


@torch.library.custom_op("graphprune_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1).contiguous()


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


class Mysterious(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.ops.graphprune_tests.mystery(self.first(x))
        return self.third(self.second(x))


def test_an_op_without_a_rule_is_pinned_and_named():
    found = graphprune.inspect(Mysterious(), (torch.randn(4, 3),))
    assert found.unknown_ops == {"graphprune_tests::mystery": ["mystery"]}
    assert [d.name for d in found.dimensions] == ["second.weight:0"]
    assert "no rule: graphprune_tests::mystery (1 nodes, first mystery)" in str(found)
    assert "no rule for graphprune_tests::mystery" in found.explain("first.weight", 0)


def test_a_model_with_an_unknown_op_can_still_be_pruned():
    net = Mysterious()
    x = torch.randn(4, 3)
    small = graphprune.prune(net, PruneChannels(ratio=0.5), (x,))
    assert small.get_parameter("second.weight").shape == (3, 6)
    assert small(x).shape == (4, 2)
