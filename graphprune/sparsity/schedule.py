"""Gradual pruning: sparsity that grows while the model trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import fx

from graphprune.errors import PassError
from graphprune.training import MaskKeeper


@dataclass(frozen=True)
class CubicSchedule:
    """Sparsity that rises fast at first and slowly at the end (Zhu & Gupta 2017, "To prune, or not to prune").

    At step t between begin and end it is ``final + (initial - final) * (1 - (t - begin) / (end - begin))³``.

    Attributes:
        initial, final: sparsity at ``begin_step`` and from ``end_step`` on, in [0, 1).
        begin_step, end_step: steps between which it rises; before ``begin_step`` nothing is pruned.
        every: steps between prunings; ``end_step`` prunes in any case.
    """

    initial: float = 0.0
    final: float = 0.9
    begin_step: int = 0
    end_step: int = 1000
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.final < 1:
            raise PassError(f"sparsities {self.initial} and {self.final} must satisfy 0 <= initial <= final < 1")
        if not 0 <= self.begin_step < self.end_step:
            raise PassError(f"steps {self.begin_step} and {self.end_step} must satisfy 0 <= begin_step < end_step")
        if self.every < 1:
            raise PassError(f"every={self.every} must be at least 1")

    def __call__(self, step: int) -> float:
        """Return the sparsity at ``step``."""
        if step < self.begin_step:
            return 0.0
        left = max(0.0, 1 - (step - self.begin_step) / (self.end_step - self.begin_step))
        return self.final + (self.initial - self.final) * left**3

    def prunes_at(self, step: int) -> bool:
        """Say whether ``step`` is one at which masks change."""
        if not self.begin_step <= step <= self.end_step:
            return False
        return step == self.end_step or (step - self.begin_step) % self.every == 0


class MaskChooser(Protocol):
    """What chooses masks at a given sparsity: ``graphprune.passes.PruneWeights``, or your own."""

    def with_sparsity(self, sparsity: float) -> MaskChooser:
        """Return the same options with another sparsity."""
        ...

    def choose_masks(self, gm: fx.GraphModule) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return keep-masks by parameter path, and reasons for the weights left alone."""
        ...


class GradualPruner:
    """Prunes a graph little by little as it trains.

    Call :meth:`step` after every step of the optimiser::

        pruner = GradualPruner(gm, CubicSchedule(final=0.9, end_step=500, every=20), PruneWeights(), optimizer)
        for x, y in loader:
            loss(gm(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        pruner.finalize()

    The schedule's sparsity takes the place of the chooser's own. A pruned weight stays pruned. To
    resume, save ``state_dict()`` beside the model's and the optimiser's and load it into a new pruner.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        schedule: CubicSchedule,
        chooser: MaskChooser,
        *optimizers: torch.optim.Optimizer,
    ) -> None:
        self._gm = gm
        self._schedule = schedule
        self._chooser = chooser
        self._keeper = MaskKeeper(gm, *optimizers)
        self._step = 0

    @property
    def sparsity(self) -> float:
        """The sparsity of the masks in force, over the weights that have one; 0 before the first pruning."""
        total = sum(mask.numel() for mask in self._keeper.masks.values())
        kept = sum(int(mask.sum()) for mask in self._keeper.masks.values())
        return 1 - kept / total if total else 0.0

    def step(self) -> bool:
        """Count one training step, prune if the schedule says so, and return whether it did."""
        due = self._schedule.prunes_at(self._step)
        if due:
            masks, _ = self._chooser.with_sparsity(self._schedule(self._step)).choose_masks(self._gm)
            self._keeper.update(masks)
        self._step += 1
        return due

    def finalize(self) -> fx.GraphModule:
        """Write the zeros a last time, remove the hooks, and return the graph."""
        return self._keeper.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to resume: the step count and the masks."""
        return {"step": self._step, "masks": {path: mask.clone() for path, mask in self._keeper.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step count and masks of a saved state.

        Raises:
            MaskError: if a mask does not fit its parameter.
        """
        self._keeper.update(state["masks"])
        self._step = int(state["step"])
