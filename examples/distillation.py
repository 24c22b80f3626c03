"""Fine-tunes a pruned network to give the outputs of the original, on inputs without labels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import fx

import graphprune as gp

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Inputs = tuple[torch.Tensor, ...]


def teach(teacher: torch.nn.Module, batches: Sequence[Inputs]) -> list[torch.Tensor]:
    """Return the teacher's output for each batch."""
    with torch.no_grad():
        return [teacher(*batch) for batch in _progress(batches, "teacher")]


def distill(
    student: fx.GraphModule,
    batches: Sequence[Inputs],
    targets: Sequence[torch.Tensor],
    loss: Loss,
    *,
    learning_rate: float,
    rounds: int = 1,
    freeze_batch_norm: bool = False,
) -> None:
    """Train ``student`` in place towards the targets; weights that were pruned stay zero."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.0)
    steps = rounds * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.2)
    gp.train_mode(student, freeze_batch_norm=freeze_batch_norm)
    with gp.hold_masks(student, optimizer):
        for step in _progress(range(steps), "fine-tuning"):
            number = step % len(batches)
            loss(student(*batches[number]), targets[number]).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    gp.eval_mode(student)


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)
