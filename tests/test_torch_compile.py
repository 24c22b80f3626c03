"""``torch.compile(model, backend="graphprune")`` gives what the model gives, or says why it cannot."""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import graphprune
import graphprune.torch_compile  # makes the name known where graphprune is not installed
from graphprune.dynamo import backend
from graphprune.passes import PruneChannels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)])
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("scale", torch.rand(8) + 0.5)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        first, second, last = self.body
        y = self.dropout(first(x).relu() * self.scale)
        return {"rows": x.shape[0], "y": last(second(y).relu())}


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x * self.calls


def overwriting(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1) * 2


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()
    torch.manual_seed(0)


def check(compiled: Callable[..., Any], model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        result, expected = compiled(x), model(x)
    assert result["rows"] == expected["rows"]
    torch.testing.assert_close(result["y"], expected["y"])


def test_compiles_anew_for_shapes_changed_weights_and_other_models():
    model, other = Net().eval(), Net().eval()
    fast, fast_other = (torch.compile(m, backend="graphprune", fullgraph=True) for m in (model, other))
    for rows in (2, 3, 2):
        check(fast, model, torch.randn(rows, 6))
    with torch.no_grad():
        model.body[1].weight.mul_(2)
    x = torch.randn(2, 6)
    check(fast, model, x)
    check(fast_other, other, x)
    check(fast, model, x)


def test_prunes_by_the_names_of_the_model():
    model, x = Net().eval(), torch.randn(3, 6)
    half = PruneChannels(ratio=0.5, ignore=("body.2",))
    small = graphprune.prune(model, half, (x,))
    assert [small.get_parameter(f"body.{i}.weight").shape[0] for i in range(3)] == [4, 10, 4]
    fast = torch.compile(model, backend="graphprune", options={"prune_pass": half, "min_sparsity": 1.0})
    check(fast, small, x)


def refused(function: Callable[..., Any], x: torch.Tensor, **options: Any) -> str:
    with pytest.raises(BackendCompilerFailed) as caught:
        torch.compile(function, backend="graphprune", **options)(x)
    assert isinstance(caught.value.inner_exception, graphprune.BackendError)
    return str(caught.value)


def test_refuses_gradients():
    message = refused(Net().eval(), torch.randn(2, 6))
    assert "inference only" in message and "torch.no_grad()" in message and "test_torch_compile.py" in message


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Net().train(), {}, "training mode"),
        (Counting(), {}, "writes to calls"),
        (overwriting, {}, "writes to l_x_"),
        (Net().eval(), {"options": {"ratio": 0.5}}, "unknown options ['ratio']"),
        (Net().eval(), {"options": {"target": "abacus"}}, "unknown target 'abacus'"),
        (Net().eval(), {"mode": "max-autotune"}, "no mode 'max-autotune'"),
    ],
)
def test_refuses_what_it_cannot_do(model: Callable[..., Any], options: dict[str, Any], message: str):
    assert message in refused(model, torch.randn(2, 6), **options)


def test_refuses_weights_whose_changes_are_not_counted():
    with torch.inference_mode():
        model = Net().eval()
        assert "made in inference mode" in refused(model, torch.randn(2, 6))


def test_torch_finds_it_by_its_entry_point():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["torch_dynamo_backends"].items()
    assert name == "graphprune"
    assert EntryPoint(name, value, "torch_dynamo_backends").load() is backend
