"""The command line, run in this process: results on standard output, errors on standard error, exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graphprune
from graphprune.cli import compile_command
from graphprune.cli.main import main
from graphprune.cli.models import example_inputs, load_model
from graphprune.cli.screen import cell, print_table
from tests.test_mixtures import Switch

MODEL = "tests.test_cli:small_model"
PRUNE = ["--pass", "prune-channels{ratio=0.5}"]


def small_model() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 5),
    )
    return model, (torch.randn(1, 3, 8, 8),)


class Sorts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1) if x.sum() > 0 else x  # cannot be traced: the branch depends on the data


def mixture() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return Switch(), (torch.randn(9, 4),)


def untraceable() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Sorts(), (torch.randn(2, 2),)


not_a_model = 7


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_inspect_lists_dimensions(capsys):
    code, out, err = run(capsys, "inspect", MODEL)
    assert (code, err) == (0, "")
    assert "2 dimensions" in out and "0 channels (" in out and "model output" in out


def test_inspect_prints_json_and_explains(capsys):
    code, out, _ = run(capsys, "inspect", MODEL, "--json")
    data = json.loads(out)
    assert code == 0
    assert [(d["name"], d["size"]) for d in data["dimensions"]] == [("0.weight:0", 16), ("2.weight:0", 32)]
    assert "0.weight:1" in {pin["axis"] for pin in data["pins"]}

    code, out, _ = run(capsys, "inspect", MODEL, "--explain", "0.weight:1", "--explain", "0.weight:0")
    assert code == 0
    assert "cannot lose elements: model input" in out and "2.weight:1" in out


def test_plan_shows_bars_saves_and_draws(capsys, tmp_path):
    saved, page = tmp_path / "half.plan", tmp_path / "page.html"
    code, out, _ = run(capsys, "plan", MODEL, *PRUNE, "--output", saved, "--html", page)
    assert code == 0 and "############............" in out and "parameters" in out
    assert graphprune.Plan.load(saved).choice("0.weight:0").removed == 8
    code, out, _ = run(capsys, "plan", MODEL, *PRUNE, "--json")
    assert [choice["size"] - len(choice["kept"]) for choice in json.loads(out)["choices"]] == [8, 16]
    again = tmp_path / "again.html"
    code, out, _ = run(capsys, "inspect", MODEL, "--html", again, "--plan", saved)
    assert code == 0 and f"wrote {again}" in out
    assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_prune_saves_a_smaller_model(capsys, tmp_path):
    output = tmp_path / "small.pt2"
    code, out, _ = run(capsys, "prune", MODEL, *PRUNE, "--output", output, "--json")
    sizes = json.loads(out)["sizes"]
    assert code == 0
    assert sizes["after"]["parameters"] < sizes["before"]["parameters"] / 2
    assert sizes["after"]["MACs"] < sizes["before"]["MACs"] / 1.9

    loaded = load_model(str(output), None)
    assert sum(p.numel() for p in loaded.model.parameters()) == sizes["after"]["parameters"]
    assert loaded.model.module()(*loaded.args).shape == (1, 5)


def test_prune_applies_a_plan_before_passes(capsys, tmp_path):
    saved = tmp_path / "half.plan"
    assert run(capsys, "plan", MODEL, *PRUNE, "--output", saved)[0] == 0
    sizes = []
    for words in (PRUNE, ["--plan", saved], ["--plan", saved, "--pass", "prune-weights{sparsity=0.5}"]):
        code, out, _ = run(capsys, "prune", MODEL, *words, "--json")
        assert code == 0
        sizes.append(json.loads(out)["sizes"]["after"])
    assert sizes[0] == sizes[1]
    assert sizes[2]["parameters"] == sizes[1]["parameters"]
    assert sizes[2]["non-zero parameters"] < sizes[1]["parameters"]
    code, _, err = run(capsys, "prune", "tests.test_cli:mixture", "--plan", saved)
    assert code == 1 and "the plan was made for graph" in err


def test_prune_chains_passes_and_prints_tables(capsys):
    code, out, _ = run(capsys, "prune", MODEL, *PRUNE, "--pass", "prune-weights{sparsity=0.75}")
    assert code == 0
    assert "prune-weights{sparsity=0.75}" in out and "non-zero parameters" in out


def test_prune_experts(capsys):
    words = ("tests.test_cli:mixture", "--pass", "prune-experts{ratio=0.5}", "--json")
    code, out, _ = run(capsys, "plan", *words)
    kept = [(choice["kind"], choice["size"], len(choice["kept"])) for choice in json.loads(out)["choices"]]
    assert code == 0 and kept == [("expert", 6, 3)]
    code, out, _ = run(capsys, "prune", *words)
    sizes, expert = json.loads(out)["sizes"], 8 * 5 + 5 * 8 + 8 + 8 + 1  # two matrices, bias, and a row of the router
    assert code == 0
    assert sizes["before"]["parameters"] - sizes["after"]["parameters"] == 3 * expert


def test_compile_then_run(capsys, tmp_path):
    artifact, output = tmp_path / "small.gp", tmp_path / "out.npz"
    code, out, _ = run(capsys, "compile", MODEL, *PRUNE, "--output", artifact)
    assert code == 0
    assert "conv2d" in out and artifact.exists()

    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code, out, _ = run(capsys, "run", artifact, "--input", tmp_path / "image.npy", "--output", output)
    assert code == 0 and "1x5" in out
    code, out, _ = run(capsys, "run", artifact, "--json")
    assert code == 0 and json.loads(out)[0]["shape"] == "1x5"

    from graphprune.passes import PruneChannels

    model, args = small_model()
    small = graphprune.prune(model, PruneChannels(ratio=0.5), example_inputs=args)
    expected = small(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(np.load(output)["output"], expected, rtol=1e-4, atol=1e-5)


def test_run_refuses_arrays_that_do_not_fit(capsys, tmp_path):
    artifact = tmp_path / "model"
    assert run(capsys, "compile", MODEL, "--output", artifact)[0] == 0
    np.save(tmp_path / "image.npy", np.zeros((1, 3, 8, 9), np.float32))
    code, out, err = run(capsys, "run", artifact, "--input", tmp_path / "image.npy")
    assert (code, out) == (1, "") and "BackendError" in err and "[1, 3, 8, 9]" in err
    code, _, err = run(capsys, "run", artifact, "--input", f"picture={tmp_path / 'image.npy'}")
    assert code == 2 and "no input is called 'picture'" in err
    code, _, err = run(capsys, "run", artifact, "--input", tmp_path / "image.npy", "--input", tmp_path / "image.npy")
    assert code == 2 and "too many" in err


def test_bench_times_all_forms_of_a_model(capsys, tmp_path):
    artifact = tmp_path / "model.gp"
    assert run(capsys, "compile", MODEL, "--output", artifact)[0] == 0
    code, out, _ = run(capsys, "bench", MODEL, artifact, *PRUNE, "--threads", "1", "--repeats", "3", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["candidate"] for row in rows] == ["torch eager", "pruned, torch eager", "pruned, compiled", "model.gp"]
    assert all(row["median"] > 0 and row["runs"] == 3 for row in rows)


def test_ops_lists_rules(capsys):
    code, out, _ = run(capsys, "ops", "--json")
    rules = {rule["op"]: rule for rule in json.loads(out)}
    assert code == 0
    assert {"aten::linear", "aten::conv2d", "aten::view"} <= set(rules)
    assert all(rule["rule"] and rule["family"] for rule in rules.values())
    assert "`conv2d`" in run(capsys, "ops", "--markdown")[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["prune", MODEL, "--pass", "prune-chanels"], 1, "did you mean 'prune-channels'"),
        (["prune", MODEL, "--pass", "prune-channels{ratio=2}"], 1, "not in [0, 1)"),
        (["prune", MODEL], 2, "give at least one --pass"),
        (["prune", MODEL, "--plan", "no_such.plan"], 1, "not a graphprune plan"),
        (["prune", MODEL, *PRUNE, "--output", "model.onnx"], 2, "must end in .pt2"),
        (["inspect", "tests.test_cli:untraceable"], 1, "TraceError"),
        (["inspect", "tests.test_cli:not_a_model"], 2, "gives a int, not a model"),
        (["inspect", "tests.test_cli:absent"], 2, "has no absent"),
        (["inspect", "no_such_package:model"], 2, "cannot import no_such_package"),
        (["inspect", "no_such_file.pt2"], 2, "there is no file"),
        (["inspect", "torch.nn:Identity"], 2, "comes without example inputs"),
        (["inspect", "model"], 2, "neither a .pt2 file nor package.module:name"),
        (["inspect", MODEL, "--explain", "conv"], 2, "cannot read --explain"),
        (["inspect", MODEL, "--explain", "conv:0"], 1, "no parameter 'conv'"),
        (["inspect", MODEL, "--input", "3,224"], 2, "cannot read --input"),
        (["inspect", MODEL, "--input", "1x3:complex7"], 2, "cannot read --input"),
        (["inspect", MODEL, "--html", "page.pdf"], 2, "must end in .html"),
        (["inspect", MODEL, "--html", "no_such_folder/page.html"], 2, "there is no directory"),
        (["inspect", MODEL, "--plan", "half.plan"], 2, "give --html FILE too"),
        (["plan", MODEL, "--pass", "fold-batch-norm"], 1, "makes no plan"),
        (["compile", MODEL, "--target", "abacus"], 1, "BackendError"),
        (["compile", MODEL, "--target", "{kind"], 1, "not JSON"),
        (["run", "no_such_artifact"], 1, "ArtifactError"),
        (["polish"], 2, "No such command"),
    ],
)
def test_errors_are_short_and_have_exit_codes(capsys, words: list[str], code: int, message: str):
    result, out, err = run(capsys, *words)
    assert result == code
    assert message in " ".join(err.split())
    assert "Traceback" not in err and out == ""


def test_a_damaged_pt2_is_refused(capsys, tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"PK not really")
    code, _, err = run(capsys, "inspect", tmp_path / "model.pt2")
    assert code == 2 and "not a file saved by torch.export" in err


def test_example_inputs_are_the_same_every_time():
    args, kwargs = example_inputs(["2x3", "mask=4:int64", "half=2x2:float16"])
    again, _ = example_inputs(["2x3"])
    assert args[0].shape == (2, 3) and torch.equal(args[0], again[0])
    assert kwargs["mask"].dtype == torch.int64 and set(kwargs["mask"].tolist()) <= {0, 1}
    assert kwargs["half"].dtype == torch.float16


def test_cells_are_spelled_for_people():
    assert [cell(value) for value in (1234567, 0.123456, None, True, "x")] == ["1,234,567", "0.1235", "", "yes", "x"]


def test_targets_are_words_or_json():
    assert compile_command.target_options(None) == {}
    assert compile_command.target_options("llvm -mcpu=native") == {"target": "llvm -mcpu=native"}
    assert compile_command.target_options('{"kind": "cuda"}') == {"target": {"kind": "cuda"}}


def test_tables_print_brackets_as_they_are(capsys):
    print_table("passes", ("pass",), [("prune-layers{ignore=[layers.0]}",)])
    assert "prune-layers{ignore=[layers.0]}" in capsys.readouterr().out
