"""Uneven choices: which dimensions allow them, that forbidden ones are refused, and that shrunk equals masked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from graphprune.analysis import Analysis, analyze
from graphprune.criteria import L1
from graphprune.errors import MaskError
from graphprune.interpret import run_masked
from graphprune.passes import PruneChannels
from graphprune.plans import Plan
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from graphprune.units.importance import unit_scores
from graphprune.units.kinds import KINDS
from tests.pruning_models import analysis, inputs, traced
from tests.random_models import random_model, redraw
from tests.zoo.check import relative_error
from tests.zoo.models import make


def allowed(found: Analysis) -> dict[str, str]:
    return {name: uneven.outer for name, uneven in found.unevenness.items() if uneven.outer is not None}


def random_uneven_plan(found: Analysis, seed: int) -> Plan:
    """Random rows with equal counts wherever they are allowed, random masks elsewhere."""
    rng = np.random.default_rng(seed)
    sizes = {d.name: d.size for d in found.dimensions}
    blocks = allowed(found)
    blocks = {inner: outer for inner, outer in blocks.items() if inner not in blocks.values()}
    keep = {}
    for name, size in sizes.items():
        count = rng.integers(1, size + 1)
        shape = (sizes[blocks[name]], size) if name in blocks else (size,)
        keep[name] = rng.random(shape).argsort(axis=-1) < count
    return found.plan(keep)


def check(gm, found: Analysis, plan: Plan, *args, tolerance=1e-5, **kwargs):
    small = shrink(gm, plan, analysis=found)
    with torch.no_grad():
        actual = small(*args, **kwargs)
        expected = run_masked(gm, found.typing, found.masks(plan), *args, **kwargs)
    assert relative_error(actual, expected) <= tolerance, plan
    assert sum(p.numel() for p in small.parameters()) == plan.cost["parameters"][1]
    return small


# ---------------------------------------------------------------------------------------------------- which


def test_head_dimensions_go_by_head():
    found = allowed(analysis("attention"))
    assert found == {"qkv.weight:0.2": "qkv.weight:0.1"}


def test_grouped_queries_go_by_key_value_head():
    found = allowed(analysis("grouped"))
    assert found == {"q.weight:0.1": "q.weight:0.0", "q.weight:0.2": "q.weight:0.0", "v.weight:0.1": "q.weight:0.0"}


def test_channels_without_an_outer_axis_say_so():
    reason = analysis("residual").unevenness["conv1.weight:0"].reason
    assert "no outer axis" in reason
    assert "may differ between elements of qkv.weight:0.1" in analysis("attention").explain("qkv.weight", 0)


class Pairwise(nn.Module):
    """Every head meets every other over the inner axis."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4, 6))
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.down(self.up(x) @ ((self.left + self.right) @ (self.left * self.right).T))


class MixedByLinear(nn.Module):
    """The outer axis is projected onto itself and added back while the inner is free."""

    def __init__(self):
        super().__init__()
        self.up, self.mix, self.down = nn.Linear(3, 4 * 6), nn.Linear(4, 4, bias=False), nn.Linear(4 * 6, 2)

    def forward(self, x):
        y = self.up(x).view(-1, 4, 6)
        y = y + self.mix(y.transpose(1, 2)).transpose(1, 2)
        return self.down(y.flatten(1))


class Normalised(MixedByLinear):
    """The outer axis is reduced while the inner is free."""

    def forward(self, x):
        y = self.up(x).view(-1, 4, 6)
        return self.down((y / y.square().sum(dim=1, keepdim=True)).flatten(1))


class OneValueTwice(nn.Module):
    """Attention whose keys are its values: the width of the queries is not the width of the result."""

    def __init__(self):
        super().__init__()
        self.queries, self.up, self.down = nn.Parameter(torch.randn(1, 6, 4)), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.up(x)[None]
        return self.down(functional.scaled_dot_product_attention(self.queries, y, y).sum(1))


class InnerFirst(MixedByLinear):
    def forward(self, x):
        return self.down(self.up(x).view(-1, 4, 6).transpose(1, 2).flatten(1))


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (Pairwise(), torch.randn(5, 3), "combines different elements of the outer axis"),
        (MixedByLinear(), torch.randn(5, 3), "combines different elements of the outer axis"),
        (Normalised(), torch.randn(5, 3), "has no outer axis for it"),
        (OneValueTwice(), torch.randn(5, 3), "combines different elements of the outer axis"),
        (InnerFirst(), torch.randn(5, 3), "comes before the outer axis"),
    ],
)
def test_what_would_mix_blocks_is_refused(model, x, words):
    gm = trace(model, (x,))
    found = analyze(gm)
    assert words in " ".join(uneven.reason for uneven in found.unevenness.values())
    inner = next(d for d in found.dimensions if d.size == 6)
    assert found.unevenness[inner.name].outer is None
    with pytest.raises(MaskError, match="must keep the same units everywhere"):
        found.plan({inner.name: np.eye(4, 6, dtype=bool)})


class StatisticOverHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(3, 4 * 6), nn.Linear(4 * 6, 2)

    def forward(self, x):
        y = self.up(x).view(-1, 4, 6)
        return self.down(functional.layer_norm(y.transpose(1, 2), (4,)).transpose(1, 2).flatten(1))


def test_a_statistic_over_the_outer_axis_is_refused():
    found = analyze(trace(StatisticOverHeads(), (torch.randn(5, 3),)))
    inner = next(d for d in found.dimensions if d.size == 6)
    assert "statistic over the outer axis" in found.unevenness[inner.name].reason


# ---------------------------------------------------------------------------------------------------- plans


def test_a_plan_prints_and_travels(tmp_path):
    plan = PruneChannels(ratio=0.5, kinds=("head_dim",), uneven=True).plan(traced("attention"))
    (choice,) = plan.choices
    assert choice.keep.shape == (3, 2) and choice.kept == choice.removed == 2
    assert "each of 3 qkv.weight:0.1 its own" in str(plan)
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan") == plan
    even = PruneChannels(ratio=0.5, kinds=("head_dim",)).plan(traced("attention"))
    assert plan.cost == even.cost
    assert "keeps 2 of 4 (by qkv.weight:0.1) here, 2 of 4 there" in plan.diff(even)


def test_rows_must_keep_equally_many():
    found = analysis("attention")
    rows = np.ones((3, 4), bool)
    rows[1, 2] = False
    with pytest.raises(MaskError, match="equally many"):
        found.plan({"qkv.weight:0.2": rows})
    with pytest.raises(MaskError, match="one row for each of 3"):
        found.plan({"qkv.weight:0.2": np.ones((2, 4), bool)})


def test_scores_of_blocks_add_up():
    found = analysis("grouped")
    targets = [d for d in found.dimensions if d.name in allowed(found)]
    even = unit_scores(found, L1(), targets)
    uneven = unit_scores(found, L1(), targets, allowed(found))
    for name, scores in even.items():
        np.testing.assert_allclose(uneven[name].sum(axis=0), scores)
    weight = traced("grouped").get_parameter("v.weight").detach().abs().view(2, 4, 8).sum(2)
    weight = weight + traced("grouped").get_parameter("v.bias").detach().abs().view(2, 4)
    weight = weight + traced("grouped").get_parameter("out.weight").detach().abs().view(8, 2, 3, 4).sum((0, 2))
    np.testing.assert_allclose(uneven["v.weight:0.1"], weight.numpy(), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", ["attention", "grouped"])
@pytest.mark.parametrize("seed", range(5))
def test_small_models_equal_the_reference(name, seed):
    found = analysis(name)
    plan = random_uneven_plan(found, seed)
    small = check(traced(name), found, plan, *inputs(name))
    torch.export.export(small, inputs(name))


class Normed(nn.Module):
    """Groups whose channels are normalised inside each group, then a grouped convolution down to other channels."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 1), nn.GroupNorm(3, 12)
        self.second, self.last = nn.Conv2d(12, 6, 3, groups=3), nn.ConvTranspose2d(6, 9, 2, groups=3)
        self.head = nn.Conv2d(9, 2, 1)

    def forward(self, x):
        return self.head(functional.relu(self.last(self.second(self.norm(self.first(x))))))


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_convolutions(seed):
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(2, 3, 5, 5)
    redraw(model)
    gm = trace(model, (x,))
    found = analyze(gm)
    assert len(allowed(found)) == 3
    check(gm, found, random_uneven_plan(found, seed), x)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_random_models_and_masks(seed):
    model, x = random_model(seed)
    gm = trace(model, (x,))
    found = analyze(gm)
    check(gm, found, random_uneven_plan(found, seed), x, tolerance=1e-9)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_dynamic_batch(seed):
    model, x = random_model(seed, length=4)
    gm = trace(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    found = analyze(gm)
    small = check(gm, found, random_uneven_plan(found, seed), x, tolerance=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(small(torch.cat([x, x[:1] * 2]))[:2], small(x))


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("hf/bert", 4),
        ("hf/llama", 4),
        ("hf/qwen3", 4),
        ("hf/gpt2", 4),
        ("timm/deit_tiny_patch16_224", 12),
        ("timm/swin_tiny_patch4_window7_224", 12),
        ("torchvision/resnext50_32x4d", 32),
        ("torchvision/regnet_x_400mf", 22),
    ],
)
def test_real_models_equal_the_reference(name, at_least):
    example = make(name)
    gm = trace(example.model, example.args, example.kwargs)
    found = analyze(gm)
    plan = PruneChannels(ratio=0.5, kinds=KINDS, uneven=True).plan(gm, analysis=found)
    assert sum(bool(choice.outer) for choice in plan.choices) >= at_least
    small = check(gm, found, plan, *example.args, **example.kwargs)
    torch.export.export(small, example.args, example.kwargs)
