"""Shapes after a rewrite: the quick way agrees with the thorough one, which takes over and has the last word."""

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from graphprune import propagation
from graphprune.errors import VerificationError
from graphprune.graph import copy_graph_module
from graphprune.propagation import check_runs, propagate_fake
from graphprune.tracing.trace import trace
from tests.pruning_models import traced


class Positions(nn.Module):
    """Makes tensors on a device that it names, and takes the shape of one from the values of another."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.register_buffer("counts", torch.tensor([1, 2, 3]))

    def forward(self, x):
        positions = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        return self.linear(x + positions).repeat_interleave(self.counts, dim=0)


def described(gm: fx.GraphModule) -> dict[str, list[tuple]]:
    values = {node.name: tree_leaves(node.meta.get("val")) for node in gm.graph.nodes}
    return {name: [(v.shape, v.dtype, v.device) for v in items if v is not None] for name, items in values.items()}


def without_values(gm: fx.GraphModule) -> fx.GraphModule:
    copied = copy_graph_module(gm)
    for node in copied.graph.nodes:
        if node.op != "placeholder":
            node.meta.pop("val", None)
    return copied


@pytest.fixture
def thorough(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count how often the thorough way is taken."""
    calls = []
    run = propagation._run_on_fake
    monkeypatch.setattr(propagation, "_run_on_fake", lambda *args: (calls.append(1), run(*args)))
    return lambda: len(calls)


@pytest.mark.parametrize("name", ["residual", "grouped", "attention"])
def test_both_ways_give_the_same_shapes(name: str, thorough: Callable[[], int]):
    quick, slow = without_values(traced(name)), without_values(traced(name))
    propagate_fake(quick)
    assert thorough() == 0
    propagation._run_on_fake(slow, [node.meta["val"] for node in slow.graph.nodes if node.op == "placeholder"])
    assert described(quick) == described(slow)
    calls = [node for node in quick.graph.nodes if node.op == "call_function"]
    assert all(isinstance(leaf, FakeTensor) for node in calls for leaf in tree_leaves(node.meta["val"]))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_further_results_have_the_sizes_of_the_device(mode: str, thorough: Callable[[], int]):
    gm = trace(nn.EmbeddingBag(7, 4, mode=mode).eval(), (torch.tensor([[1, 2], [3, 4], [5, 6]]),))
    quick = without_values(gm)
    propagate_fake(quick)
    assert thorough() == 0
    assert described(quick) == described(gm)


def test_dynamic_sizes_take_the_thorough_way(thorough: Callable[[], int]):
    model, size = nn.Sequential(nn.Linear(6, 4), nn.Flatten()), torch.export.Dim.DYNAMIC
    gm = without_values(trace(model, (torch.randn(3, 6),), dynamic_shapes=({0: size},)))
    propagate_fake(gm)
    assert thorough() == 1
    assert not isinstance(list(gm.graph.nodes)[-2].meta["val"].shape[0], int)


def test_values_that_shapes_depend_on_take_the_thorough_way(thorough: Callable[[], int]):
    model = Positions().eval()
    x = torch.randn(3, 6)
    gm = without_values(trace(model, (x,)))
    propagate_fake(gm)
    assert thorough() == 1
    assert len(list(gm.graph.nodes)[-2].meta["val"].shape) == model(x).dim()


def test_a_graph_that_does_not_run_is_reported():
    gm = copy_graph_module(traced("residual"))
    name, weight = next((n, p) for n, p in gm.named_parameters() if p.dim() == 4)
    module = gm.get_submodule(name.rpartition(".")[0])
    module.register_parameter("weight", nn.Parameter(weight.detach()[:, :1].repeat(1, 7, 1, 1)))
    with pytest.raises(VerificationError, match="does not run"):
        check_runs(gm, "the graph", "the model")
