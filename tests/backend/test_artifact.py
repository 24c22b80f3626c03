"""Artifacts: what is loaded is what was exported, torch or not, and anything else is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graphprune import runtime
from graphprune.backend.column_gaps import pack_gaps
from graphprune.compiler import CompiledModel, compile
from graphprune.errors import ArtifactError, BackendError
from graphprune.manifest import manifest_digest

WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not importable here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import graphprune.runtime

model = graphprune.runtime.load(sys.argv[1])
x = np.load(sys.argv[2])
result = model(x, scale=np.full((1,), 2.0, np.float32))
assert "torch" not in sys.modules
assert isinstance(result, dict) and isinstance(result["pair"], tuple) and result["nothing"] is None
np.savez(sys.argv[3], sum=result["sum"], first=result["pair"][0], second=result["pair"][1])
"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x, *, scale):
        features = torch.relu(self.conv(x)).mean((2, 3))
        scores = self.head(features) * scale
        return {"sum": scores.sum(), "pair": (scores, features), "nothing": None}


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 12, 12, generator=generator), torch.full((1,), 2.0)


@pytest.fixture(scope="module")
def compiled(inputs) -> CompiledModel:
    torch.manual_seed(0)
    x, scale = inputs
    return compile(Net().eval(), None, (x,), {"scale": scale})


@pytest.fixture(scope="module")
def exported(compiled, tmp_path_factory) -> Path:
    return compiled.export(tmp_path_factory.mktemp("artifact") / "model")


@pytest.fixture
def artifact(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.mark.parametrize("runtime_only", [False, True])
def test_round_trip_in_a_process_without_torch_is_exact(exported, compiled, inputs, tmp_path, runtime_only):
    x, scale = inputs
    np.save(tmp_path / "x.npy", x.numpy())
    environment = dict(os.environ) | ({"TVM_USE_RUNTIME_LIB": "1"} if runtime_only else {})
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exported), str(tmp_path / "x.npy"), str(tmp_path / "y.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Scope" not in done.stderr
    loaded, expected = np.load(tmp_path / "y.npz"), compiled(x, scale=scale)
    assert np.array_equal(loaded["sum"], expected["sum"].numpy())
    assert np.array_equal(loaded["first"], expected["pair"][0].numpy())
    assert np.array_equal(loaded["second"], expected["pair"][1].numpy())


@pytest.mark.parametrize("name", ["model.gp", "model.zip"])
def test_zip_round_trip(compiled, inputs, tmp_path, name):
    path = compiled.export(tmp_path / name)
    assert zipfile.is_zipfile(path) and os.listdir(tmp_path) == [name]
    x, scale = inputs
    result = runtime.load(path)(x.numpy(), scale=scale.numpy())
    assert np.array_equal(result["pair"][0], compiled(x, scale=scale)["pair"][0].numpy())


def test_export_replaces_an_artifact_but_nothing_else(compiled, artifact, tmp_path):
    compiled.export(artifact)
    assert sorted(os.listdir(artifact)) == ["manifest.json", "model.so"]
    (artifact / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="other files"):
        compiled.export(artifact)
    (tmp_path / "notes.gp").write_text("mine")
    with pytest.raises(ArtifactError, match="not an artifact"):
        compiled.export(tmp_path / "notes.gp")
    assert (tmp_path / "notes.gp").read_text() == "mine"


def test_failed_export_leaves_nothing(compiled, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled._executable, "export_library", fail)
    with pytest.raises(ArtifactError, match="no compiler"):
        compiled.export(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_manifest_says_what_is_inside(exported):
    manifest = runtime.load(exported).manifest
    assert manifest["signature"]["inputs"][0]["shape"] == [2, 3, 12, 12]
    assert manifest["target"]["kind"] == "llvm" and manifest["versions"]["tvm"]
    assert {layer["name"] for layer in manifest["report"]["layers"]} == {"conv.weight", "head.weight"}


def test_library_holds_packed_weights_and_no_dense_copy_of_them(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 48, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(48 * 36, 40)).eval()
    for layer in (model[0], model[3]):
        layer.weight.data *= torch.rand_like(layer.weight) >= 0.9
    compiled = compile(model, None, (torch.randn(1, 32, 8, 8),), min_sparsity=0.5)
    assert all(layer.kernel.startswith("sparse") for layer in compiled.report().layers)
    library = (compiled.export(tmp_path / "model") / "model.so").read_bytes()
    filters, matrix = (layer.weight.detach().flatten(1).numpy() for layer in (model[0], model[3]))
    assert filters[filters != 0][-20:].tobytes() in library  # the end of the packed values
    group = pack_gaps(matrix, 1)  # of the rows that are longest: they come first, however the others are dealt out
    assert group.records[: group.starts[1]].tobytes() in library
    for weight in (filters, matrix):
        for form in (weight, weight.T):
            assert np.ascontiguousarray(form)[5].tobytes() not in library
    nonzeros = sum(int((layer.weight != 0).sum()) for layer in (model[0], model[3]))
    code = len(library) - 6 * nonzeros  # 32-bit values, offsets of 16 bits or less
    assert code < 150_000


def test_missing_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="no artifact at"):
        runtime.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["manifest.json", "model.so"])
def test_missing_part(artifact, name):
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        runtime.load(artifact)


def test_changed_library(artifact):
    content = bytearray((artifact / "model.so").read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / "model.so").write_bytes(content)
    with pytest.raises(ArtifactError, match="sha256"):
        runtime.load(artifact)


def test_truncated_zip(compiled, tmp_path):
    path = compiled.export(tmp_path / "model.gp")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="not a complete artifact"):
        runtime.load(path)


def _edit(artifact: Path, resign: bool, **entries) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest.update(entries)
    if resign:
        manifest["digest"] = manifest_digest(manifest)
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def test_edited_manifest(artifact):
    _edit(artifact, resign=False, cpu_features=[])
    with pytest.raises(ArtifactError, match="changed after export"):
        runtime.load(artifact)


def test_manifest_that_is_not_json(artifact):
    (artifact / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        runtime.load(artifact)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"versions": {"tvm": "0.1"}}, "built with TVM 0.1"),
        ({"machine": "Plan9-mips"}, "is for Plan9-mips"),
        ({"cpu_features": ["avx4096"]}, "avx4096"),
        ({"format": 99}, "format 99"),
        ({"target": {"kind": "abacus"}}, "abacus"),
    ],
)
def test_artifact_for_something_else(artifact, entries, message):
    _edit(artifact, resign=True, **entries)
    with pytest.raises(ArtifactError, match=message):
        runtime.load(artifact)


def test_loaded_model_checks_its_inputs(exported):
    model = runtime.load(exported)
    x, scale = np.zeros((2, 3, 12, 12), np.float32), np.ones(1, np.float32)
    with pytest.raises(BackendError, match="float64"):
        model(x.astype(np.float64), scale=scale)
    with pytest.raises(BackendError, match="scale"):
        model(x)
    with pytest.raises(BackendError, match="list"):
        model([1, 2], scale=scale)


def test_unaligned_and_strided_arrays_are_copied(exported, inputs):
    model = runtime.load(exported)
    x, scale = inputs[0].numpy(), inputs[1].numpy()
    storage = np.zeros(x.size + 1, np.float32)
    unaligned = storage[1:].reshape(x.shape)
    unaligned[:] = x
    strided = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    expected = model(x, scale=scale)["pair"][0]
    for variant in (unaligned, strided):
        assert np.array_equal(model(variant, scale=scale)["pair"][0], expected)
