"""Plans of PruneLayers applied to ordinary modules: the layer's module passes its input through."""

import copy
import io
import re

import pytest
import torch
from torch import nn

import graphprune as gp
from graphprune.errors import HardCodedSizeError
from graphprune.passes import PruneChannels, PruneLayers
from tests.zoo.check import relative_error
from tests.zoo.eager import state_of
from tests.zoo.models import make


class Residual(nn.Module):
    """A block in one of the forms that modules return."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.norm, self.linear = form, nn.BatchNorm1d(6), nn.Linear(6, 6)

    def forward(self, x, scale=1.0):
        y = x + scale * self.linear(self.norm(x)).relu()
        return {"tensor": y, "tuple": (None, y), "list": [y, "name"], "pair": (y, y.sum()), "dict": {"y": y}}[self.form]


class Chain(nn.Module):
    def __init__(self, form: str = "tensor", shared: bool = False) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(Residual(form) for _ in range(3))
        self.calls = [self.blocks[i] for i in (0, 1, 1, 2)] if shared else list(self.blocks)

    def forward(self, x):
        x = self.stem(x)
        for block in self.calls:
            result = block(scale=0.5, x=x)
            tensors = result.values() if isinstance(result, dict) else [result] if torch.is_tensor(result) else result
            x = next(tensor for tensor in tensors if torch.is_tensor(tensor))
        return self.head(x)


def chain(**options) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return Chain(**options).eval(), (torch.randn(5, 4),)


@pytest.mark.parametrize("form", ["tensor", "tuple", "list"])
def test_a_block_passes_its_input_through(form):
    model, x = chain(form=form)
    plan = gp.plan(model, PruneLayers(count=1, include=("blocks.1",)), x)
    small = gp.prune(model, plan, x)
    assert plan.apply_(model, x) is model
    assert set(dict(model.named_parameters())) == set(dict(small.named_parameters()))
    assert not list(model.blocks[1].parameters()) and isinstance(model.blocks[1], Residual)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for again in (model, copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        torch.testing.assert_close(again(*x), small(*x))
    half = gp.plan(model, PruneChannels(ratio=0.5), x)
    expected = gp.prune(model, half, x)(*x)
    torch.testing.assert_close(half.apply_(model, x)(*x), expected)


def test_saved_and_loaded(tmp_path):
    model, x = chain()
    plan = gp.plan(model, PruneLayers(count=1), x)
    plan.apply_(model, x)
    gp.save_pruned(model, plan, tmp_path)
    fresh = gp.load_pruned(Chain().eval(), tmp_path, example_inputs=x)
    torch.testing.assert_close(fresh(*x), model(*x))
    small = gp.prune(chain()[0], plan, x)
    gp.save_pruned(small, plan, tmp_path / "graph")
    torch.testing.assert_close(gp.load_pruned(Chain().eval(), tmp_path / "graph", example_inputs=x)(*x), model(*x))


@pytest.mark.parametrize(
    ("options", "granularity", "message"),
    [
        ({"form": "pair"}, "block", "returns 2 tensors"),
        ({"form": "dict"}, "block", "returns 0 tensors"),
        ({"shared": True}, "block", "is called 2 times"),
        ({}, "branch", "differs"),
    ],
)
def test_what_is_no_module_of_its_own_is_refused(options, granularity, message):
    model, x = chain(**options)
    layers = PruneLayers(count=1, granularity=granularity, include=("blocks.1*",))
    plan = gp.plan(model, layers, x)
    before = state_of(model)
    with pytest.raises(HardCodedSizeError, match=re.escape(message)) as caught:
        plan.apply_(model, x)
    assert "granularity='block'" in str(caught.value)
    assert state_of(model) == before


def test_a_transformers_model_is_saved_and_loaded(tmp_path):
    example = make("hf/llama")
    plan = gp.plan(example.model, PruneLayers(count=1), example_kwargs=example.kwargs)
    expected = gp.prune(example.model, plan, example_kwargs=example.kwargs)(**example.kwargs)
    plan.apply_(example.model, example_kwargs=example.kwargs)
    example.model.save_pretrained(tmp_path)
    fresh = gp.load_pruned(make("hf/llama").model, plan, tmp_path, example_kwargs=example.kwargs)
    for model in (example.model, fresh):
        with torch.no_grad():
            assert relative_error(model(**example.kwargs), expected) < 1e-6
