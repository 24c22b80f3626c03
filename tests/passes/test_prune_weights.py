"""PruneWeights: budgets, patterns, selection of layers, masks that add up, and its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune import pass_spec
from graphprune.criteria import L1, L2, BNScale, Criterion, Fisher, Random, Wanda
from graphprune.errors import PassError
from graphprune.graph import get_attribute, graph_info
from graphprune.passes.prune_weights import PruneWeights
from graphprune.tracing.trace import trace
from tests.small_models import cross_entropy, traced_conv_net
from tests.zoo.models import make

WEIGHTS = ("conv1.weight", "conv2.weight", "head.weight")


def zeros(gm, path):
    return int((get_attribute(gm, path) == 0).sum())


def masks_of(gm):
    return graph_info(gm).weight_masks


def summary_of(gm):
    return graph_info(gm).history[-1].summary


def traced_linear(rows, columns, seed=0):
    torch.manual_seed(seed)
    return trace(nn.Linear(columns, rows), (torch.randn(2, columns),))


def test_global_magnitude_pruning_zeroes_the_smallest_weights_of_all():
    gm = traced_conv_net()
    pruned = PruneWeights(sparsity=0.7)(gm)
    everything = torch.cat([get_attribute(gm, path).detach().flatten() for path in WEIGHTS])
    count = round(0.7 * everything.numel())
    threshold = everything.abs().sort().values[count - 1]
    for path in WEIGHTS:
        before, after = get_attribute(gm, path), get_attribute(pruned, path)
        assert torch.equal(after, before * (before.abs() > threshold))
        assert torch.equal(masks_of(pruned)[path], before.abs() > threshold)
    assert summary_of(pruned)["zeros"] == count
    assert not masks_of(gm)


def test_other_parameters_and_the_input_graph_stay_as_they_were():
    gm = traced_conv_net()
    before = {name: value.clone() for name, value in gm.state_dict().items()}
    pruned = PruneWeights(sparsity=0.9)(gm)
    for name, value in gm.state_dict().items():
        assert torch.equal(value, before[name])
        if name not in WEIGHTS:
            assert torch.equal(pruned.state_dict()[name], value)
    x = torch.randn(8, 4, 8, 8)
    assert not torch.equal(gm(x), pruned(x))


@settings(max_examples=40, deadline=None)
@given(
    sparsity=st.floats(0, 0.999),
    scope=st.sampled_from(["global", "layer", "row"]),
    distinct=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_budgets_are_exact_even_with_ties(sparsity, scope, distinct, seed):
    gm = GRAPH
    torch.manual_seed(seed)
    with torch.no_grad():
        for path in WEIGHTS:  # few distinct magnitudes, none of them zero
            weight = get_attribute(gm, path)
            weight.copy_((torch.randint(1, distinct + 1, weight.shape) * torch.randn(weight.shape).sign()).float())
    pruned = PruneWeights(sparsity=sparsity, scope=scope)(gm)
    shapes = [get_attribute(gm, path).shape for path in WEIGHTS]
    if scope == "global":
        expected = round(sparsity * sum(shape.numel() for shape in shapes))
    elif scope == "layer":
        expected = sum(round(sparsity * shape.numel()) for shape in shapes)
    else:
        expected = sum(shape[0] * round(sparsity * shape[1:].numel()) for shape in shapes)
    assert sum(zeros(pruned, path) for path in WEIGHTS) == expected == summary_of(pruned)["zeros"]
    again = PruneWeights(sparsity=sparsity, scope=scope)(gm)
    assert all(torch.equal(masks_of(again)[path], masks_of(pruned)[path]) for path in WEIGHTS)


GRAPH = traced_conv_net()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_n_of_m_keeps_the_n_largest_of_every_m_inputs(data):
    group = data.draw(st.integers(2, 8))
    kept = data.draw(st.integers(1, group - 1))
    rows, groups = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    gm = traced_linear(rows, groups * group, seed=data.draw(st.integers(0, 99)))
    pruned = PruneWeights(pattern=f"{kept}:{group}")(gm)
    before = get_attribute(gm, "weight").detach().abs().reshape(rows, groups, group)
    mask = masks_of(pruned)["weight"].reshape(rows, groups, group)
    assert (mask.sum(-1) == kept).all()
    smallest_kept = before.masked_fill(~mask, torch.inf).amin(-1)
    largest_dropped = before.masked_fill(mask, -torch.inf).amax(-1)
    assert (smallest_kept >= largest_dropped).all()


def test_n_of_m_runs_along_input_channels_and_reports_what_does_not_divide():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.body = nn.Conv2d(8, 8, 3)
            self.up = nn.ConvTranspose2d(8, 6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(self.body(self.stem(x)))

    pruned = PruneWeights(pattern="2:4")(trace(Model(), (torch.randn(1, 3, 9, 9),)))
    masks = masks_of(pruned)
    assert set(masks) == {"body.weight", "up.weight"}
    assert (masks["body.weight"].unflatten(1, (2, 4)).sum(2) == 2).all()
    assert (masks["up.weight"].unflatten(0, (2, 4)).sum(1) == 2).all()
    assert zeros(pruned, "stem.weight") == 0
    [skipped] = summary_of(pruned)["skipped"]
    assert skipped["path"] == "stem.weight" and "3 inputs do not divide into groups of 4" in skipped["reason"]


def test_blocks_leave_together_and_the_weakest_first():
    gm = traced_linear(8, 12)
    pruned = PruneWeights(sparsity=0.75, pattern="block:2x4", criterion=L2())(gm)
    norms = get_attribute(gm, "weight").detach().reshape(4, 2, 3, 4).square().sum((1, 3)).sqrt()
    kept = masks_of(pruned)["weight"].reshape(4, 2, 3, 4).sum((1, 3))
    assert set(kept.unique().tolist()) == {0, 8}
    assert torch.equal(kept == 8, norms >= norms.flatten().sort().values[9])


def test_a_pruned_weight_stays_pruned():
    gm = traced_conv_net()
    first = PruneWeights(sparsity=0.5, criterion=Random(1))(gm)
    second = PruneWeights(sparsity=0.8, criterion=Random(2))(first)
    third = PruneWeights(sparsity=0.3, criterion=L1())(second)
    for path in WEIGHTS:
        assert not (masks_of(second)[path] & ~masks_of(first)[path]).any()
        assert torch.equal(masks_of(third)[path], masks_of(second)[path])
    total = sum(masks_of(second)[path].numel() for path in WEIGHTS)
    assert summary_of(second)["zeros"] == round(0.8 * total)
    both = PruneWeights(pattern="2:4", ignore=("conv1.*",))(PruneWeights(sparsity=0.2)(gm))
    per_group = masks_of(both)["head.weight"].unflatten(1, (4, 4)).sum(2)
    assert (per_group <= 2).all()


def test_layers_can_be_chosen_and_given_their_own_sparsity():
    gm = traced_conv_net()
    pruned = PruneWeights(sparsity=0.5, ignore=("head.*",), layer_sparsity={"conv1.*": 0.25})(gm)
    assert zeros(pruned, "conv1.weight") == round(0.25 * 16 * 4 * 9)
    assert zeros(pruned, "conv2.weight") == round(0.5 * 16 * 8 * 9)
    assert zeros(pruned, "head.weight") == 0
    assert summary_of(pruned)["skipped"] == [{"path": "head.weight", "reason": "in ignore"}]
    only_head = PruneWeights(sparsity=0.5, include=("head.*",))(gm)
    assert set(masks_of(only_head)) == {"head.weight"}


def test_a_tied_weight_is_pruned_once_and_a_shared_embedding_only_by_name():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.a = nn.Linear(8, 8)
            self.b = nn.Linear(8, 8)
            self.b.weight = self.a.weight
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.b(self.a(self.embedding(ids))))

    torch.manual_seed(0)
    gm = trace(Tied(), (torch.randint(0, 10, (2, 3)),))
    pruned = PruneWeights(sparsity=0.5)(gm)
    summary = summary_of(pruned)
    assert [layer["weights"] for layer in summary["layers"]] == [64]
    assert summary["zeros"] == 32
    [skipped] = summary["skipped"]
    assert "embedding" in skipped["reason"]
    named = PruneWeights(sparsity=0.5, include=(skipped["path"],))(gm)
    assert zeros(named, skipped["path"]) == 40


def test_resnet18_with_data_driven_criteria():
    model = make("torchvision/resnet18").model
    x = torch.randn(2, 3, 64, 64)
    gm = trace(model, (x,))
    batches = [(x, torch.tensor([1, 2]))]
    everything = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    for criterion in (Fisher(batches, cross_entropy), Wanda(batches)):
        pruned = PruneWeights(sparsity=0.9, criterion=criterion)(gm)
        assert summary_of(pruned)["weights"] == everything
        assert summary_of(pruned)["zeros"] == round(0.9 * everything)
        assert pruned(x).isfinite().all()


def test_bert_linears_but_no_embeddings():
    example = make("hf/bert")
    gm = trace(example.model, example.args, example.kwargs)
    pruned = PruneWeights(sparsity=0.8, scope="row", criterion=Wanda([example.kwargs]))(gm)
    linears = {name for name, module in example.model.named_modules() if isinstance(module, nn.Linear)}
    assert {path.removesuffix(".weight") for path in masks_of(pruned)} == linears
    for path, mask in masks_of(pruned).items():
        per_row = (~mask).sum(1)
        assert (per_row == round(0.8 * mask.shape[1])).all(), path


def test_gpt2_conv1d_weights_are_found_by_what_the_graph_does():
    example = make("hf/gpt2")
    gm = trace(example.model, example.args, example.kwargs)
    pruned = PruneWeights(pattern="2:4")(gm)
    mask = masks_of(pruned)["transformer.h.0.mlp.c_fc.weight"]
    assert mask.shape == (48, 192)  # [in, out]
    assert (mask.unflatten(0, (12, 4)).sum(1) == 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "not in"),
        ({"sparsity": -0.1}, "not in"),
        ({"layer_sparsity": {"conv1.*": 1.5}}, "not in"),
        ({"pattern": "4:2"}, "unknown sparsity pattern"),
        ({"pattern": "dense"}, "unknown sparsity pattern"),
        ({"pattern": "2:4", "layer_sparsity": {"conv1.*": 0.5}}, "fixes the sparsity"),
        ({"scope": "channel"}, "unknown scope"),
        ({"include": ("convolution1.*",)}, "matches no parameter"),
        ({"ignore": ("*.wieght",)}, "matches no parameter"),
        ({"include": ("bn1.*",)}, "no weight to prune"),
        ({"criterion": BNScale()}, "BNScale does not score it"),
        ({"pattern": "block:5x7"}, "does not divide"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(PassError, match=message):
        PruneWeights(**options)(GRAPH)


def test_scores_that_are_not_numbers_are_an_error():
    gm = traced_linear(4, 4)
    with torch.no_grad():
        get_attribute(gm, "weight")[1, 1] = torch.nan
    with pytest.raises(PassError, match="weight scores that are not numbers"):
        PruneWeights(sparsity=0.5)(gm)


def test_weights_without_values_cannot_be_ranked():
    with torch.device("meta"):
        gm = trace(nn.Linear(4, 4), (torch.randn(2, 4),))
    with pytest.raises(PassError, match="meta device"):
        PruneWeights(sparsity=0.5)(gm)


@pytest.mark.parametrize(
    "pass_",
    [
        PruneWeights(),
        PruneWeights(pattern="2:4"),
        PruneWeights(sparsity=0.5, scope="row", criterion=L2(), ignore=("head.*",)),
        PruneWeights(layer_sparsity={"conv1.*": 0.5}, pattern="block:1x4"),
    ],
)
def test_command_line_spelling_reads_back(pass_, monkeypatch):
    monkeypatch.setattr(pass_spec, "available_passes", lambda: {"prune-weights": PruneWeights})
    assert pass_spec.parse_pass(pass_.spec()) == pass_


def test_an_own_criterion_can_be_used():
    class Largest(Criterion):
        def saliency(self, gm, parameters):
            return {path: 1 / (1 + get_attribute(gm, path).detach().abs()) for path in parameters}

    gm = traced_linear(4, 4)
    pruned = PruneWeights(sparsity=0.5, criterion=Largest())(gm)
    weight, mask = get_attribute(gm, "weight").abs(), masks_of(pruned)["weight"]
    assert weight[mask].max() <= weight[~mask].min()
