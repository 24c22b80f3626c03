"""Plans applied to ordinary modules: right sizes everywhere, tied parameters, and nothing left behind on failure."""

import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprune as gp
from graphprune.eager import apply as apply_module
from graphprune.errors import HardCodedSizeError, MaskError, TraceError
from graphprune.passes import FoldBatchNorm, PruneChannels, PruneHeads
from graphprune.tracing.trace import trace
from tests.pruning_models import inputs, model
from tests.small_models import conv_net
from tests.zoo.check import relative_error
from tests.zoo.eager import state_of

HALF = PruneChannels(ratio=0.5)


def applied(module, args, prune_pass=HALF):
    """Apply a pass's plan in place, check the results against the shrunk graph, and return the module."""
    plan = gp.plan(module, prune_pass, args)
    expected = gp.prune(module, plan, args)(*args)
    assert plan.apply_(module, args) is module
    with torch.no_grad():
        assert relative_error(module(*args), expected) < 1e-5
    return module


def test_sizes_of_standard_layers_follow():
    module = applied(model("residual"), inputs("residual"))
    assert (module.conv1.in_channels, module.conv1.out_channels) == (4, 3)
    assert module.norm1.num_features == 3 and module.norm1.running_mean.shape == (3,)
    assert (module.head.in_features, module.head.out_features) == (4, 5)
    assert "Conv2d(4, 3, kernel_size=(3, 3)" in repr(module)


def test_a_grouped_convolution():
    x = (torch.randn(2, 4, 8, 8),)
    module = applied(conv_net(), x, PruneChannels(ratio=0.5, kinds=("channel", "neuron", "embedding", "factor")))
    assert module.conv2.weight.shape[0] == module.conv2.out_channels < 16


@pytest.mark.parametrize("prune_pass", [HALF, PruneHeads(ratio=0.5)])
def test_attention_with_its_own_names_for_sizes(prune_pass):
    module = applied(model("attention"), inputs("attention"), prune_pass)
    if isinstance(prune_pass, PruneHeads):
        assert module.heads < 3 and module.head_width == 4
    assert module.logits.weight is module.embedding.weight
    assert module.embedding.embedding_dim == module.embedding.weight.shape[1] == module.logits.in_features
    assert module.norm.normalized_shape == (module.embedding.embedding_dim,)


class Choices(nn.Module):
    """Four heads of width four on four positions: the numbers alone do not tell which is which."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 48), nn.Linear(16, 6)
        self.count, self.width, self.positions = 4, 4, 4
        self.scale = self.width**-0.5

    def forward(self, x):
        n = x.shape[0]
        qkv = self.qkv(x).view(n, self.positions, 3, self.count, self.width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        return self.out((attention @ v).transpose(1, 2).reshape(n, self.positions, self.count * self.width))


@pytest.mark.parametrize(("kind", "sizes"), [("head", (2, 4, 4)), ("head_dim", (4, 2, 4))])
def test_equal_numbers_of_different_meaning(kind, sizes):
    torch.manual_seed(0)
    module = applied(Choices().eval(), (torch.randn(4, 4, 6),), PruneChannels(ratio=0.5, kinds=(kind,)))
    assert (module.count, module.width, module.positions) == sizes
    assert module.scale == 4**-0.5


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def test_a_recurrent_layer_keeps_its_list_of_weights():
    torch.manual_seed(0)
    module = applied(Recurrent().eval(), (torch.randn(2, 5, 6),))
    assert module.lstm.hidden_size == 4
    assert all(a is b for a, b in zip(module.lstm._flat_weights, module.lstm.parameters(), strict=True))


def test_a_module_used_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mix = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.again, self.head = self.mix, nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.head(functional.relu(self.again(self.mix(self.stem(x)))))

    module = applied(Twice().eval(), (torch.randn(1, 3, 6, 6),))
    assert module.again is module.mix and module.mix.groups == 4


class Caching(nn.Module):
    """Keeps what it computed from a parameter while it evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.rand(8))
        self.cache: dict[str, torch.Tensor] = {}

    def train(self, mode=True):
        self.cache.clear()
        return super().train(mode)

    def forward(self, x):
        if not self.cache:
            self.cache["scale"] = self.scale.exp()
        return self.last(self.first(x) * self.cache["scale"])


def test_caches_of_old_sizes_are_dropped():
    module, x = Caching().eval(), torch.randn(2, 4)
    module(x)
    assert applied(module, (x,)).cache["scale"].shape == (4,)


class Shifting(nn.Module):
    """Two heads, and a shift by two positions that has nothing to do with them."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.heads = 2, 2
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        rows, positions, _ = x.shape
        q, k, v = self.qkv(x.roll(self.shift, 1)).view(rows, positions, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, positions, -1)
        return self.out(y)


def test_numbers_that_no_shape_depends_on_stay():
    module = applied(Shifting(), (torch.randn(2, 6, 8),), PruneHeads(ratio=0.5))
    assert (module.heads, module.shift) == (1, 2)


def test_training_goes_on():
    module = conv_net().train()
    plan = gp.plan(module, HALF, (torch.randn(8, 4, 8, 8),))
    plan.apply_(module, (torch.randn(8, 4, 8, 8),))
    assert module.training and module.bn1.training
    before = module.bn1.running_mean.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.randn(8, 4, 8, 8)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, module.bn1.running_mean)
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_frozen_parameters_hooks_and_dtype_stay():
    module, x = model("residual").double(), (inputs("residual")[0].double(),)
    module.conv1.weight.requires_grad_(False)
    calls = []
    module.conv1.register_forward_hook(lambda *_: calls.append(1))
    applied(module, x)
    calls.clear()
    module(*x)
    assert calls == [1]
    assert not module.conv1.weight.requires_grad and module.conv1.weight.dtype == torch.float64


def test_weight_masks_become_zeros():
    module, x = model("residual"), inputs("residual")
    plan = gp.plan(module, HALF, x)
    masks = {"conv1.weight": torch.rand(6, 8, 3, 3) > 0.5, "head.bias": torch.tensor([True, False, True, True, True])}
    kept = plan.choice(next(c.name for c in plan.choices if "conv1.weight:0" in c.members)).keep
    dataclasses.replace(plan, weight_masks=masks).apply_(module, x)
    zeros = (module.conv1.weight == 0).float().mean()
    assert 0.4 < zeros < 0.6 and len(kept) == len(module.conv1.weight)
    assert module.head.bias[1] == 0 and module.head.bias[0] != 0


class HardCoded(nn.Module):
    """Fails in a way of choice once its eight channels are fewer."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.last = fault, None
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        y = self.norm(self.stem(x)).relu().mean((2, 3))
        if self.fault == "view":
            y = y.view(2, 8)
        if self.fault == "constant":
            y = y * y.shape[1] ** -0.5
        if self.fault == "fresh tensor":
            y = y + torch.ones(8)
        if self.fault == "branch" and y.shape[1] != 8:
            raise ValueError("eight channels are expected")
        return self.head(y)


@pytest.mark.parametrize("fault", ["view", "constant", "fresh tensor", "branch"])
@pytest.mark.parametrize("training", [False, True])
def test_hard_coded_sizes_are_named_and_nothing_changes(fault, training):
    torch.manual_seed(0)
    module, x = HardCoded(fault).train(training), (torch.randn(2, 3, 6, 6),)
    plan = gp.plan(module, HALF, x)
    before, values = state_of(module), {name: t.clone() for name, t in module.state_dict().items()}
    with pytest.raises(HardCodedSizeError) as caught:
        plan.apply_(module, x)
    pattern = {"view": "y.view(2, 8)", "constant": "y.shape[1] ** -0.5", "fresh tensor": "torch.ones(8)"}
    assert pattern.get(fault, "raise ValueError") in str(caught.value), str(caught.value)
    assert re.search(r"test_apply_plan\.py:\d+", str(caught.value))
    assert state_of(module) == before
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "step", ["replace_tensors", "corrections", "settle", "run_trial", "check_same_graph", "update_configuration"]
)
def test_a_failure_at_any_step_leaves_the_model_untouched(step, monkeypatch):
    module, x = model("attention"), inputs("attention")
    plan = gp.plan(module, HALF, x)
    before = state_of(module)
    original = getattr(apply_module, step)

    def fail(*args, **kwargs):
        if step != "corrections":
            original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(apply_module, step, fail)
    with pytest.raises(KeyboardInterrupt):
        plan.apply_(module, x)
    assert state_of(module) == before
    monkeypatch.undo()
    plan.apply_(module, x)
    assert state_of(module) != before


def test_a_plan_for_a_rewritten_graph_is_refused():
    module, x = model("residual"), inputs("residual")
    plan = HALF.plan(FoldBatchNorm()(trace(module, x)))
    with pytest.raises(MaskError, match="the plan was made for graph"):
        plan.apply_(module, x)


def test_graphs_are_refused():
    plan = gp.plan(model("residual"), HALF, inputs("residual"))
    with pytest.raises(TraceError, match="ordinary modules"):
        plan.apply_(trace(model("residual"), inputs("residual")), inputs("residual"))
