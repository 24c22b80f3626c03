"""The accuracy table, on a small network: budgets are met, every row is reported, the original comes first."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import accuracy
from crepe import load_crepe
from crepe_pitch import accuracy as pitch_accuracy
from tones import harmonic_tones


def test_rows_of_a_small_network():
    frames, cents = harmonic_tones(32, seed=0)
    task = accuracy.Task(
        name="tiny CREPE",
        measure="raw pitch accuracy",
        model=load_crepe("tiny"),
        batches=[(batch,) for batch in harmonic_tones(16, seed=1)[0].split(8)],
        kinds=("channel",),
        score=lambda model: pitch_accuracy(model, frames, cents),
        loss=F.binary_cross_entropy_with_logits,
        targets=torch.sigmoid,
        learning_rate=1e-3,
        rounds=1,
    )
    reported: list[accuracy.Row] = []
    rows = accuracy.measure(task, reported.append)
    assert rows == reported
    assert [row.choice for row in rows] == ["original", "even", "even"]
    assert [row.after is None for row in rows] == [True, False, False]
    for row, budget in zip(rows, (1.0, 0.7, 0.5)):
        assert budget - 0.12 <= row.macs <= budget
    assert rows[0].before > 0.7 and rows[0].before >= rows[2].before
