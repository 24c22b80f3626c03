"""profile(): rows belong to the layers they say, sums add up, and it travels through JSON and artifacts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from graphprune import runtime
from graphprune.cli.main import main
from graphprune.compiler import CompiledModel, compile
from graphprune.errors import BackendError
from graphprune.kernel_calls import KernelCall
from graphprune.profiling import KernelTime, Profile, profile

MODEL = "tests.test_profile:model_with_twins"


class Twins(nn.Module):
    """Convolutions of equal shape, which share a function; one of them is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(256, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = self.second(self.first(x).relu()).relu()
        x = torch.sigmoid(self.first(x).relu())
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


def model_with_twins() -> tuple[nn.Module, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    model = Twins().eval()
    model.second.weight.data[:8] = 0
    return model, (torch.randn(1, 3, 8, 8),)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    model, inputs = model_with_twins()
    return compile(model, None, inputs, min_sparsity=1.0)


INPUT = model_with_twins()[1][0]


def test_each_call_is_traced_to_its_layer(compiled: CompiledModel) -> None:
    rows = compiled.profile(INPUT, repeats=3).rows
    layers = [row.call.layer for row in rows if row.call.kernel.startswith("dense")]
    assert layers == ["stem.weight", "first.weight", "second.weight", "first.weight", "head.weight"]
    functions = {row.call.function for row in rows if row.call.layer in ("first.weight", "second.weight")}
    assert len(functions) == 1, "this test is about layers that share a function"
    second = next(row.call for row in rows if row.call.layer == "second.weight")
    assert second.shape == (1, 16, 8, 8)
    assert second.macs == 16 * 8 * 8 * 16 * 9
    assert second.density == 0.5 and second.nonzero_macs == second.macs // 2
    assert any(row.call.layer == "max_pool2d" for row in rows)
    assert any("sigmoid" in row.call.layer and row.call.kernel == "relax" for row in rows)


def test_attention_is_counted() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    x = torch.randn(1, 2, 12, 16)
    rows = compile(Attention(), None, (x,)).profile(x, repeats=1).rows
    assert [(row.call.kernel, row.call.macs) for row in rows] == [("attention", 2 * 2 * 12 * 12 * 16)]


def test_sums_shares_and_order(compiled: CompiledModel) -> None:
    result = compiled.profile(INPUT, repeats=3)
    assert result.total == pytest.approx(sum(row.seconds for row in result.rows) + result.everything_else)
    data = json.loads(json.dumps(result.as_dict()))
    seconds = [row["seconds"] for row in data["rows"]]
    assert seconds == sorted(seconds, reverse=True) and min(seconds) >= 0
    shares = sum(row["share"] for row in data["rows"]) + data["everything_else"] / result.total
    assert shares == pytest.approx(1)
    lines = str(result).splitlines()
    assert "everything else" in lines[-1] and any("second.weight" in line and "50.0%" in line for line in lines)


def test_rates_and_noise() -> None:
    call = KernelCall("f", "layer", "sparse_linear", (1, 4), macs=1_000_000, density=0.1)
    row = KernelTime(call, 1e-3)
    assert row.gigaflops == pytest.approx(0.2) and row.dense_gigaflops == pytest.approx(2.0)
    noisy = Profile((row,), seconds=0.5e-3, repeats=1)
    assert noisy.everything_else == 0 and noisy.total == 1e-3
    assert KernelCall.from_dict(json.loads(json.dumps(call.as_dict()))) == call


def test_calls_that_are_not_the_models_name_functions_only(compiled: CompiledModel) -> None:
    rows = profile(compiled._get_executor(), [INPUT], compiled.report().calls[1:], repeats=1).rows
    assert {row.call.kernel for row in rows} == {"unknown"}
    assert "stem.weight" not in {row.call.layer for row in rows}


def test_results_are_the_same_after_a_profile(compiled: CompiledModel) -> None:
    before = compiled(INPUT)
    compiled.profile(INPUT, repeats=1)
    assert torch.equal(compiled(INPUT), before)


def test_refusals(compiled: CompiledModel) -> None:
    with pytest.raises(BackendError, match="repeats"):
        compiled.profile(INPUT, repeats=0)
    with pytest.raises(BackendError):
        compiled.profile(INPUT[:, :2], repeats=1)


def test_artifacts_and_the_command_line(compiled: CompiledModel, tmp_path, capsys) -> None:
    path = compiled.export(tmp_path / "twins.gp")
    rows = runtime.load(path).profile(INPUT.numpy(), repeats=1).rows
    assert [row.call for row in rows] == list(compiled.report().calls)

    np.save(tmp_path / "x.npy", INPUT.numpy())
    assert main(["run", str(path), "-i", str(tmp_path / "x.npy"), "--profile"]) == 0
    assert "second.weight" in capsys.readouterr().out
    assert main(["run", str(path), "--profile", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["profile"]["rows"]) == len(rows)


def test_bench_profiles_what_it_compiled(capsys) -> None:
    assert main(["bench", MODEL, "--repeats", "1", "--profile", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert "head.weight" in {row["layer"] for row in data["profiles"][0]["rows"]}
    assert [row["candidate"] for row in data["times"]] == ["torch eager", "compiled"]
    assert main(["bench", MODEL, "--no-compile", "--profile"]) == 2
