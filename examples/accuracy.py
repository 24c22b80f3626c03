"""Measures what structured pruning costs in accuracy on the two pretrained examples, before and after fine-tuning.

    python examples/accuracy.py [--quick] [--task crepe] [--task minilm] [--json FILE]

Each network loses 30 % and 50 % of its multiply-accumulates. Where heads or groups may each keep units of their own,
both choices are shown: even (the same units everywhere) and uneven; they cost the same. Fine-tuning is short, without
labels: the smaller network learns to answer like the original.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comparison import macs
from crepe import load_crepe
from crepe_pitch import accuracy
from distillation import distill, teach
from docstrings import passages
from minilm import load_minilm, tokenize
from minilm_search import cosine_distance, search_scores
from rich.console import Console
from rich.table import Table
from tones import harmonic_tones
from torch import fx, nn

import graphprune as gp
from graphprune.passes import PruneChannels
from graphprune.tracing.trace import trace

MACS_LEFT = (0.7, 0.5)
say = Console(stderr=True).print


@dataclass(frozen=True)
class Task:
    """A pretrained network, what it is scored by, and what it learns from after pruning.

    Attributes:
        name: for the table.
        measure: what ``score`` is.
        model: the original.
        batches: inputs to learn from.
        kinds: kinds of dimensions to prune.
        score: accuracy of a model, from 0 to 1.
        loss: between a student's outputs and the original's.
        targets: what the loss compares with, from the original's outputs.
        learning_rate, rounds: of the fine-tuning.
    """

    name: str
    measure: str
    model: nn.Module
    batches: Sequence[tuple[torch.Tensor, ...]]
    kinds: tuple[str, ...]
    score: Callable[[nn.Module | fx.GraphModule], float]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    targets: Callable[[torch.Tensor], torch.Tensor]
    learning_rate: float
    rounds: int


@dataclass(frozen=True)
class Row:
    """One line of the table; ``before`` and ``after`` fine-tuning."""

    task: str
    measure: str
    macs: float
    choice: str
    before: float
    after: float | None


def crepe_task(quick: bool) -> Task:
    """Return the pitch tracker."""
    frames, cents = harmonic_tones(128 if quick else 1024, seed=0)
    batches = [(batch,) for batch in harmonic_tones(32 * (10 if quick else 60), seed=1)[0].split(32)]
    return Task(
        name="CREPE",
        measure="raw pitch accuracy",
        model=load_crepe(),
        batches=batches,
        kinds=("channel",),
        score=lambda model: accuracy(model, frames, cents),
        loss=F.binary_cross_entropy_with_logits,
        targets=torch.sigmoid,
        learning_rate=2e-3,
        rounds=1,
    )


def minilm_task(quick: bool) -> Task:
    """Return the sentence encoder; neurons and head widths go, the heads themselves stay."""
    model, tokenizer = load_minilm()
    known = passages()
    test, train = known[: 128 if quick else 512], known[512 : 512 + (96 if quick else 800)]
    texts = [text for pair in train for text in (pair.body, pair.summary)]
    return Task(
        name="MiniLM",
        measure="recall at 1",
        model=model,
        batches=[tokenize(tokenizer, texts[start : start + 16]) for start in range(0, len(texts), 16)],
        kinds=("neuron", "head_dim"),
        score=lambda model: search_scores(model, tokenizer, test)["recall at 1"],
        loss=cosine_distance,
        targets=lambda vectors: vectors,
        learning_rate=4e-4,
        rounds=1,
    )


TASKS: dict[str, Callable[[bool], Task]] = {"crepe": crepe_task, "minilm": minilm_task}


def measure(task: Task, report: Callable[[Row], None]) -> list[Row]:
    """Return the rows of one task, reporting each as soon as it is known."""
    targets = [task.targets(output) for output in teach(task.model, task.batches)]
    graph = trace(task.model, tuple(part[:2] for part in task.batches[0]), dynamic_shapes=_open_batch(task))
    full = macs(graph)
    rows = [Row(task.name, task.measure, 1.0, "original", task.score(task.model), None)]
    report(rows[0])
    for left in MACS_LEFT:
        for uneven in (False, True):
            prune = PruneChannels(macs=left, kinds=task.kinds, uneven=uneven)
            if uneven and not any(choice.outer for choice in gp.plan(graph, prune).choices):
                say(f"{task.name} has no dimension that could be chosen unevenly")
                continue
            small = gp.prune(graph, prune)
            before = task.score(small)
            distill(small, task.batches, targets, task.loss, learning_rate=task.learning_rate, rounds=task.rounds)
            choice = "uneven" if uneven else "even"
            rows.append(Row(task.name, task.measure, macs(small) / full, choice, before, task.score(small)))
            report(rows[-1])
    return rows


def _open_batch(task: Task) -> list[dict[int, Any]]:
    """Leave the batch of every input open."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    return [{0: batch} for _ in task.batches[0]]


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="accuracy after structured pruning", title_justify="left", show_edge=False)
    for column in ("network", "measure", "MACs left", "choice", "before fine-tuning", "after"):
        table.add_column(column, justify="left" if column in ("network", "measure", "choice") else "right")
    for row in rows:
        after = "" if row.after is None else f"{row.after:.1%}"
        table.add_row(row.task, row.measure, f"{row.macs:.1%}", row.choice, f"{row.before:.1%}", after)
    Console(width=None if Console().is_terminal else 130, highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="learn from and test on less")
    parser.add_argument("--task", action="append", choices=sorted(TASKS), help="only this one; repeat for several")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.task or TASKS:
        task = TASKS[name](arguments.quick)
        rows += measure(task, lambda row: say(asdict(row)))
    print_rows(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
