"""The examples run offline on published weights, and pruning does to accuracy what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import docstrings  # noqa: E402
from crepe import BINS, FIRST_BIN_CENTS, load_crepe, pitch_in_cents, raw_pitch_accuracy  # noqa: E402
from tones import harmonic_tones  # noqa: E402


def run_example(script: str, results: Path) -> dict[str, dict[str, float]]:
    command = [sys.executable, f"examples/{script}", "--quick", "--json", str(results)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "differ by at most" in result.stdout
    return json.loads(results.read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_crepe_hears_pitch_after_pruning(tmp_path: Path):
    results = run_example("crepe_pitch.py", tmp_path / "results.json")
    accuracy = {name: values["accuracy"] for name, values in results.items()}
    assert accuracy["original"] > 0.9
    assert accuracy["half of the channels"] > 0.7
    assert accuracy["half of the channels, then 80 % zero"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_minilm_finds_docstrings_after_pruning(tmp_path: Path):
    results = run_example("minilm_search.py", tmp_path / "results.json")
    recall = {name: values["recall at 1"] for name, values in results.items()}
    assert recall["original"] > 0.6
    assert recall["70 % of the neurons"] > 0.75 * recall["original"]
    assert recall["80 % of weights zero"] > 0.4 * recall["original"]


def test_tiny_crepe_hears_clean_tones():
    frames, cents = harmonic_tones(64, seed=3)
    with torch.inference_mode():
        logits = load_crepe("tiny")(frames)
    assert logits.shape == (64, BINS)
    assert raw_pitch_accuracy(logits, cents) > 0.85


def test_pitch_is_the_weighted_mean_around_the_peak():
    logits = torch.full((2, BINS), -30.0)
    logits[0, 100] = 5.0
    logits[1, 358:360] = 5.0  # at the edge, where there are fewer neighbours
    expected = torch.tensor([100.0, 358.5]) * 20 + FIRST_BIN_CENTS
    torch.testing.assert_close(pitch_in_cents(logits), expected, atol=0.1, rtol=0)
    assert raw_pitch_accuracy(logits, expected + torch.tensor([49.0, 51.0])) == 0.5


def test_tones_are_the_same_every_time_and_normalised():
    frames, cents = harmonic_tones(8, seed=5)
    again, _ = harmonic_tones(8, seed=5)
    other, _ = harmonic_tones(8, seed=6)
    assert torch.equal(frames, again) and not torch.equal(frames, other)
    torch.testing.assert_close(frames.mean(1), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(1, unbiased=False), torch.ones(8))
    assert ((10 * 2 ** (cents / 1200) >= 54) & (10 * 2 ** (cents / 1200) <= 1501)).all()


def test_docstrings_are_split_without_giving_the_name_away():
    passages = docstrings.passages()
    assert len(passages) > 1000
    assert passages == docstrings.passages()
    median = next(passage for passage in passages if passage.name == "numpy.median")
    assert median.summary == "Compute the median along the specified axis."
    assert "median" not in median.body.split()


def test_recall_and_rank():
    queries = torch.eye(4)
    documents = torch.eye(4)[[0, 1, 3, 2]]
    assert docstrings.recall_and_mrr(queries, documents) == (0.5, 0.75)
