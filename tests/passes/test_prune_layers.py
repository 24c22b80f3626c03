"""PruneLayers: branches and blocks go, the rest computes what it would without them."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

import graphprune
from graphprune.batches import example_batch
from graphprune.errors import MaskError, PassError
from graphprune.graph import graph_info
from graphprune.pass_spec import parse_pass
from graphprune.passes import PruneLayers
from graphprune.sections.blocks import find_blocks
from graphprune.sections.residuals import find_branches
from graphprune.tracing.trace import trace
from tests.random_models import redraw
from tests.section_oracle import run_without
from tests.zoo.models import make


class Block(nn.Module):
    """Pre-norm attention with a layer scale, and a gated feed-forward part in a scaled branch."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 24), nn.Linear(12, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.scale * self.drop(self.out(y))
        return x + 0.5 * self.down(functional.glu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.layers = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def encoder(**options):
    torch.manual_seed(0)
    model = Encoder(**options).eval()
    redraw(model)
    return model


def example():
    return (torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture(scope="module")
def traced():
    return trace(encoder(), example())


def titles(**options):
    return [section.title for section in PruneLayers(**options).layers(trace(encoder(), example()))]


def test_blocks_and_branches_have_names():
    assert titles() == ["layers.0", "layers.1", "layers.2"]
    branches = titles(granularity="branch")
    assert len(branches) == len(set(branches)) == 6
    assert branches[0] == "layers.0 residual branch, 1" and branches[-1] == "layers.2 residual branch, 2"


@pytest.mark.parametrize("granularity", ["block", "branch"])
@pytest.mark.parametrize("criterion", ["similarity", "output"])
def test_the_result_equals_the_original_without_the_layers(traced, granularity, criterion):
    prune = PruneLayers(count=2, granularity=granularity, criterion=criterion)
    small = prune(traced)
    removed = graph_info(small).history[-1].summary["removed"]
    assert len(removed) == 2
    sections = [section for section in prune.layers(traced) if section.title in removed]
    torch.testing.assert_close([small(*example())], run_without(traced, sections, (example(),)))
    left = {name for name, _ in small.named_parameters()}
    gone = {path for section in sections for path in section.parameters}
    assert gone and not gone & left and gone | left == {name for name, _ in traced.named_parameters()}
    torch.export.export(small, example())


def test_the_layer_that_does_least_goes():
    model = encoder()
    with torch.no_grad():
        for name in ("scale", "down.weight", "down.bias"):
            model.get_parameter(f"layers.1.{name}").mul_(1e-3)
    gm = trace(model, example())
    data = [(example()[0], torch.tensor([0, 3]))]
    loss = lambda output, batch: functional.cross_entropy(output, batch[1])  # noqa: E731
    cases: list[dict[str, Any]] = [{}, {"criterion": "output"}, {"data": data, "batches": 1}]
    for options in cases:
        summary = graph_info(PruneLayers(count=1, **options)(gm)).history[-1].summary
        assert list(summary["removed"]) == ["layers.1"], options
        assert summary["cost"]["parameters"][1] < summary["cost"]["parameters"][0]
    with_loss = PruneLayers(criterion="loss", data=data, loss=loss)
    scores = with_loss.scores(gm)
    base = loss(gm(*example()), data[0]).item()
    for section in with_loss.layers(gm):
        (output,) = run_without(gm, [section], data[0])
        assert scores[section.title] == pytest.approx(loss(output, data[0]).item() - base, abs=1e-5)


def test_similarity_is_one_minus_the_mean_cosine():
    model = encoder(depth=2)
    gm = trace(model, example())
    x = model.stem(example()[0])
    scores = PruneLayers().scores(gm)
    for name, layer in (("layers.0", model.layers[0]), ("layers.1", model.layers[1])):
        y = layer(x)
        assert scores[name] == pytest.approx(1 - functional.cosine_similarity(x, y, dim=-1).mean().item(), abs=1e-5)
        x = y


def test_a_dynamic_batch_stays_dynamic():
    gm = trace(encoder(), example(), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=2, max=64)}})
    small = PruneLayers(count=2)(gm)
    sections = [s for s in find_blocks(gm) if s.title in graph_info(small).history[-1].summary["removed"]]
    x = torch.randn(5, 6, 5)
    torch.testing.assert_close([small(x)], run_without(gm, sections, x))


def test_include_and_ignore(traced):
    assert [s.title for s in PruneLayers(include=("layers.1",)).layers(traced)] == ["layers.1"]
    assert [s.title for s in PruneLayers(ignore=("layers.[02]",)).layers(traced)] == ["layers.1"]
    assert len(PruneLayers(include=("layers",)).layers(traced)) == 3
    removed = graph_info(PruneLayers(count=1, include=("layers.2",))(traced)).history[-1].summary["removed"]
    assert list(removed) == ["layers.2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 3}, "cannot remove 3 layers"),
        ({"count": 2, "include": ("layers.0",)}, "1 may go"),
        ({"count": -1}, "negative"),
        ({"ratio": 1.0}, "ratio 1.0"),
        ({"criterion": "size"}, "unknown criterion"),
        ({"granularity": "stage"}, "unknown granularity"),
        ({"criterion": "loss"}, "needs data and a loss"),
        ({"include": ("layer.1",)}, "'layer.1' matches no"),
    ],
)
def test_options_that_make_no_sense(traced, options, message):
    with pytest.raises(PassError, match=message.replace("(", "\\(")):
        PruneLayers(**options)(traced)


def test_a_chain_has_no_layers_to_leave_out():
    gm = trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), (torch.randn(2, 4),))
    with pytest.raises(PassError, match="no block that can be left out"):
        PruneLayers(count=1)(gm)


def test_the_spelling_reads_back():
    prune = PruneLayers(count=2, granularity="branch", ignore=("layers.0",))
    assert prune.spec() == "prune-layers{count=2,granularity=branch,ignore=[layers.0]}"
    assert parse_pass(prune.spec()) == prune


def test_an_activation_is_no_branch():
    class Polynomial(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x):
            y = self.first(x)
            return self.second(y + 0.04 * y**3)

    assert find_branches(trace(Polynomial(), (torch.randn(2, 4),))) == []


def test_views_on_the_stream_are_followed_only_if_they_lead_back():
    class Windowed(nn.Module):
        def __init__(self, turn):
            super().__init__()
            self.norm, self.mlp, self.turn = nn.LayerNorm(8), nn.Linear(8, 8), turn

        def forward(self, x):
            x = x.reshape(2, 16, 8)
            x = x + self.mlp(self.norm(x))
            x = x.reshape(2, 4, 4, 8)
            return x.transpose(1, 2) if self.turn else x

    def blocks(turn):
        return find_blocks(trace(nn.Sequential(Windowed(turn), Windowed(turn)), (torch.randn(2, 4, 4, 8),)))

    assert [section.title for section in blocks(False)] == ["0", "1"]
    assert blocks(True) == []


def test_shared_weights_stay_while_one_call_does():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = Block(), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.block(self.block(self.block(x))))

    model = Shared().eval()
    redraw(model)
    x = torch.randn(2, 3, 8)
    gm = trace(model, (x,))
    assert [section.title for section in find_blocks(gm)] == ["block, 1", "block, 2", "block, 3"]
    torch.testing.assert_close(PruneLayers(count=2)(gm)(x), model.head(model.block(x)))


REAL = {
    "torchvision/resnet50": (12, 12), "torchvision/convnext_tiny": (18, 18), "torchvision/vit_b_16": (12, 24),
    "timm/swin_tiny_patch4_window7_224": (12, 24), "hf/bert": (2, 4), "hf/llama": (2, 4), "hf/gpt2": (2, 4),
    "hf/mamba": (2, 2), "hf/t5": (4, 10), "torchvision/mobilenet_v3_small": (6, 6), "hf/segformer": (4, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_models(name):
    model = make(name)
    gm = trace(model.model, model.args, model.kwargs)
    batch = example_batch(gm)
    for granularity, expected in zip(("block", "branch"), REAL[name], strict=True):
        prune = PruneLayers(ratio=0.5, granularity=granularity)
        sections = prune.layers(gm)
        assert len(sections) == expected
        small = prune(gm)
        removed = graph_info(small).history[-1].summary["removed"]
        assert len(removed) == expected // 2
        with torch.no_grad():
            actual = tree_leaves(small(*model.args, **model.kwargs))
        reference = run_without(gm, [s for s in sections if s.title in removed], batch)
        torch.testing.assert_close([a for a in actual if isinstance(a, torch.Tensor)], reference, rtol=1e-4, atol=1e-5)
        before, after = (sum(p.numel() for p in g.parameters()) for g in (gm, small))
        assert after < before
    torch.export.export(PruneLayers(count=1)(gm), model.args, model.kwargs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("granularity", ["block", "branch"])
def test_low_precision(dtype, granularity):
    x = example()[0].to(dtype)
    gm = trace(encoder().to(dtype), (x,))
    small = PruneLayers(count=1, granularity=granularity)(gm)
    removed = graph_info(small).history[-1].summary["removed"]
    finder = find_blocks if granularity == "block" else find_branches
    reference = run_without(gm, [s for s in finder(gm) if s.title in removed], x)
    assert small(x).dtype == dtype
    torch.testing.assert_close([small(x)], reference)


@pytest.mark.parametrize("granularity", ["block", "branch"])
def test_the_plan_does_what_the_pass_does(traced, granularity, tmp_path):
    prune = PruneLayers(count=1, granularity=granularity)
    plan = graphprune.plan(traced, prune)
    small = prune(traced)
    summary = graph_info(small).history[-1].summary
    assert [layer.title for layer in plan.layers] == list(summary["removed"])
    assert {name: list(pair) for name, pair in plan.cost.items()} == summary["cost"]
    plan.save(tmp_path / "layers.plan")
    loaded = graphprune.Plan.load(tmp_path / "layers.plan")
    assert loaded == plan and f"{plan.layers[0].title}: left out" in str(loaded)
    again = graphprune.prune(encoder(), loaded, example())
    assert again.state_dict().keys() == small.state_dict().keys()
    torch.testing.assert_close(again(*example()), small(*example()))
    other = graphprune.plan(traced, PruneLayers(count=1, granularity=granularity, ignore=(plan.layers[0].module,)))
    assert "left out here only" in plan.diff(other) and plan != other


def test_a_plan_of_layers_is_for_one_graph_and_has_no_units(traced):
    plan = graphprune.plan(traced, PruneLayers(count=1))
    with pytest.raises(MaskError, match="was made for graph"):
        graphprune.prune(encoder(depth=4), plan, example())
    with pytest.raises(MaskError, match="layers, which are no axes"):
        graphprune.inspect(traced).masks(plan)
    masked = dataclasses.replace(plan, weight_masks={"stem.weight": torch.ones(8, 5, dtype=torch.bool)})
    with pytest.raises(MaskError, match="not both"):
        graphprune.prune(traced, masked)


def test_prune_and_compose(traced):
    small = graphprune.prune(encoder(), [PruneLayers(count=1), PruneLayers(count=1)], example())
    assert len(find_blocks(small)) == 0, "one block is left, and it repeats nobody"
    assert len(find_branches(small)) == 2
