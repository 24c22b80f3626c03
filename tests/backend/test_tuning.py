"""Choice by measurement, with a timer of its own so that the outcome is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import graphprune.backend.tuning.tuner as tuner_module
from graphprune.backend import get_backend
from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.kernels import Choice, ConvShape, Epilogue
from graphprune.backend.tuning import Candidate, Decision, Tuner, TuningCache, candidates, default_folder
from graphprune.backend.tuning.candidates import CHOICES
from graphprune.compiler import compile
from graphprune.errors import BackendError
from tests.backend.kernel_harness import check_conv2d, check_linear

TARGET = "llvm -mcpu=native"
DECISION = Decision(Candidate(True, Choice(vectors=4, gathers=False)), 1e-6, 2e-6)


def sparse_weight(*shape, density=0.3):
    generator = np.random.default_rng(0)
    return (generator.standard_normal(shape) * (generator.random(shape) < density)).astype(np.float32)


def layer(density=0.3):
    return FusedLayer(sparse_weight(24, 400, density=density), None, (64, 400), Epilogue())


def make_tuner(folder, measure, **options):
    backend = get_backend(TARGET)
    return Tuner(backend, backend.target(TARGET), search=True, cache=folder, measure=measure, **options)


def never(calls):
    raise AssertionError("nothing should be measured")


def last_is_fastest(calls):
    return {name: 1.0 / (i + 1) for i, name in enumerate(calls)}


def default_is_nearly_fastest(calls):
    return {name: 1.0 if i == 0 else 0.98 for i, name in enumerate(calls)}


def test_the_fastest_candidate_wins_and_is_remembered(tmp_path):
    ways = candidates(layer(), sparse=False)
    decision, origin = make_tuner(tmp_path, last_is_fastest).decide("a", layer(), sparse=False)
    assert origin == "measured"
    assert decision.candidate.sparse and decision.candidate in ways, "a dense-marked layer became sparse"
    assert decision.seconds < decision.default_seconds == 1.0
    again, origin = make_tuner(tmp_path, never).decide("a", layer(), sparse=False)
    assert origin == "cached" and again == decision


def test_a_gain_within_the_noise_keeps_the_default(tmp_path):
    decision, _ = make_tuner(tmp_path, default_is_nearly_fastest).decide("a", layer(), sparse=True)
    assert decision.candidate == Candidate(True)
    assert decision.seconds == decision.default_seconds == 1.0


def test_a_fixed_format_is_kept(tmp_path):
    tuner = make_tuner(tmp_path, last_is_fastest, fixed_format=True)
    assert tuner.decide("a", layer(), sparse=True)[0].candidate.sparse
    assert not tuner.decide("a", layer(), sparse=False)[0].candidate.sparse


def test_one_token_has_one_sparse_candidate():
    token = FusedLayer(sparse_weight(24, 40), None, (1, 1, 40), Epilogue())
    assert [way for way in candidates(token, sparse=True) if way.sparse] == [Candidate(True)]


def test_dense_layers_and_depthwise_ones_are_not_tried_sparse():
    shape = (1, 8, 9, 9)
    depthwise = FusedLayer(sparse_weight(8, 1, 3, 3), None, shape, Epilogue(), ConvShape(shape, groups=8))
    grouped = FusedLayer(sparse_weight(8, 4, 3, 3), None, shape, Epilogue(), ConvShape(shape, groups=2))
    assert any(way.sparse for way in candidates(grouped, sparse=False))
    for ways in (candidates(layer(1.0), sparse=False), candidates(depthwise, sparse=False)):
        assert len(ways) > 1 and not any(way.sparse for way in ways)


def test_no_time_means_no_measuring(tmp_path):
    assert make_tuner(tmp_path, never, seconds=0.0).decide("a", layer(), sparse=False) is None


def test_interruption_loses_nothing(tmp_path):
    def interrupt(calls):
        raise KeyboardInterrupt

    first, second = layer(0.3), layer(0.6)
    make_tuner(tmp_path, last_is_fastest).decide("first", first, sparse=False)
    with pytest.raises(KeyboardInterrupt):
        make_tuner(tmp_path, interrupt).decide("second", second, sparse=False)
    tuner = make_tuner(tmp_path, last_is_fastest)
    assert [tuner.decide("", each, sparse=False)[1] for each in (first, second)] == ["cached", "measured"]


def test_the_cache_survives_and_merges(tmp_path):
    one, two = (TuningCache(tmp_path, {"target": "x", "threads": 2}) for _ in range(2))
    one.put("a", DECISION)
    two.put("b", DECISION)
    merged = TuningCache(tmp_path, {"threads": 2, "target": "x"})
    assert merged.get("a") == merged.get("b") == DECISION
    assert TuningCache(tmp_path, {"target": "y", "threads": 2}).get("a") is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"vectors"', '"tiles"'),
        lambda text: text.replace('"x"', '"other"'),
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace("4,", '"four",'),
    ],
)
def test_a_damaged_or_foreign_cache_is_ignored_with_a_warning(tmp_path, damage):
    cache = TuningCache(tmp_path, {"target": "x"})
    cache.put("a", DECISION)
    text = cache.path.read_text()
    assert damage(text) != text
    cache.path.write_text(damage(text))
    with pytest.warns(UserWarning, match="is ignored"):
        read = TuningCache(tmp_path, {"target": "x"})
    assert read.get("a") is None
    with pytest.warns(UserWarning, match="is ignored"):
        read.put("b", DECISION)
    assert json.loads(cache.path.read_text())["layers"].keys() == {"b"}


def test_an_unwritable_cache_warns(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    cache = TuningCache(taken / "folder", {"target": "x"})
    with pytest.warns(UserWarning, match="cannot be written"):
        cache.put("a", DECISION)
    assert cache.get("a") == DECISION


def test_the_environment_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    monkeypatch.delenv("GRAPHPRUNE_CACHE")
    assert default_folder().parts[-2:] == ("graphprune", "tuning")


@pytest.mark.parametrize("target", ["llvm -mcpu=skylake-avx512", {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}])
def test_only_this_machine_is_tuned_for(target, tmp_path, monkeypatch):
    monkeypatch.setattr(tuner_module.codegen, "llvm_get_system_cpu", lambda: "x86-64")
    monkeypatch.setattr(tuner_module.codegen, "llvm_get_system_triple", lambda: "x86_64-linux-gnu")
    backend = get_backend(target)
    with pytest.raises(BackendError, match="cannot run code"):
        Tuner(backend, backend.target(target), search=True, cache=tmp_path)
    Tuner(backend, backend.target(target), search=False, cache=tmp_path)


@pytest.mark.parametrize(
    ("sparse", "choice"),
    [(kind == "sparse", choice) for kind in ("dense", "sparse") for choice in CHOICES[f"{kind} convolution"]],
    ids=str,
)
def test_every_choice_of_a_convolution_computes_the_same(sparse, choice):
    shape = {"padding": (1, 1), "stride": (2, 1), "epilogue": Epilogue(bias=True, activation="relu")}
    check_conv2d((1, 70, 9, 11), (72, 70, 3, 3), sparse=sparse, sparsity=0.6 * sparse, choice=choice, **shape)


@pytest.mark.parametrize("choice", CHOICES["sparse 1x1 convolution"], ids=str)
def test_every_choice_of_a_sparse_1x1_convolution_computes_the_same(choice):
    check_conv2d((1, 90, 11, 13), (40, 90, 1, 1), sparse=True, sparsity=0.7, choice=choice)


@pytest.mark.parametrize("choice", CHOICES["depthwise convolution"], ids=str)
def test_every_choice_of_a_depthwise_convolution_computes_the_same(choice):
    check_conv2d((1, 6, 19, 13), (6, 1, 3, 3), sparse=False, groups=6, padding=(1, 1), choice=choice)


@pytest.mark.parametrize("kind", ["dense linear", "sparse linear"])
def test_every_choice_of_a_linear_layer_computes_the_same(kind):
    for choice in CHOICES[kind]:
        sparse = kind.startswith("sparse")
        check_linear((37, 300), 50, sparse=sparse, sparsity=0.7 * sparse, choice=choice)


def test_a_tuned_model_computes_what_the_untuned_one_does(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 1), nn.Flatten(), nn.Linear(1536, 10))
    model[2].weight.data *= torch.rand_like(model[2].weight) > 0.7
    x = torch.randn(1, 3, 16, 16)
    plain, tuned = compile(model, None, (x,)), compile(model, None, (x,), tune=True, cache=tmp_path)
    looked_up = compile(model, None, (x,), cache=tmp_path)
    expected = plain(x)
    for compiled in (tuned, looked_up):
        assert (compiled(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not plain.report().tuned
    for compiled, origin in ((tuned, "measured"), (looked_up, "cached")):
        timings = [layer.timing for layer in compiled.report().layers if layer.timing]
        assert len(timings) >= 2 and {timing.origin for timing in timings} == {origin}
    assert "default" in str(tuned.report()) and tuned.report().as_dict()["layers"][0]["timing"]["seconds"] > 0


def test_a_limit_without_a_search_is_refused():
    with pytest.raises(BackendError, match="nobody asked for"):
        compile(nn.Linear(4, 4), None, (torch.randn(2, 4),), tune_seconds=1.0)


def test_an_old_decision_that_no_kernel_takes_any_more_is_not_used(tmp_path):
    x = torch.randn(1, 8, 3, 3)
    model = nn.Conv2d(8, 24, 3)
    tuner = make_tuner(tmp_path, never)
    weight = model.weight.detach().numpy()
    key = tuner_module.layer_key(FusedLayer(weight, None, (1, 8, 3, 3), Epilogue(bias=True), ConvShape(x.shape)), None)
    tuner._cache.put(key, Decision(Candidate(False, Choice(small_planes=True)), 1.0, 2.0))
    compiled = compile(model, None, (x,), cache=tmp_path)
    assert compiled.report().layers[0].timing is None
    assert (compiled(x) - model(x)).abs().max() <= 1e-5
