"""Times the stages of pruning one zoo model, in seconds of processor time, which other processes hardly disturb."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rich.table import Table

from graphprune.analysis import analyze
from graphprune.criteria import Even
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.zoo.models import make

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Processor seconds of each stage.

    ``plan`` chooses units without looking at weights; ``scored`` is the same plan with the default criterion, which
    reads all of them, so many ``megabytes``; ``read`` is what it takes to sum them up once: ``scored`` cannot take
    less. ``shrink`` has its self-check.
    """

    name: str
    nodes: int
    megabytes: float
    trace: float
    infer: float
    plan: float
    scored: float
    shrink: float
    read: float

    @property
    def analysis_share(self) -> float:
        """Inference and plan as a fraction of the trace."""
        return (self.infer + self.plan) / self.trace

    @property
    def scored_share(self) -> float:
        """Inference and the plan with scored weights as a fraction of the trace."""
        return (self.infer + self.scored) / self.trace

    @property
    def shrink_share(self) -> float:
        """Shrinking as a fraction of the trace."""
        return self.shrink / self.trace


def time_model(name: str) -> Timing:
    """Time ``name`` once; call it for another model first, so that imports and caches of torch do not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = make(name)
        gm, traced = _timed(lambda: trace(example.model, example.args, example.kwargs))
        analysis, inferred = _timed(lambda: analyze(gm))
        _, planned = _timed(lambda: PruneChannels(ratio=0.5, criterion=Even()).plan(gm, analysis=analysis))
        plan, scored = _timed(lambda: PruneChannels(ratio=0.5).plan(gm, analysis=analysis))
        _, shrunk = _timed(lambda: shrink(gm, plan, analysis=analysis))
        _, read = _timed(lambda: [parameter.detach().sum() for parameter in gm.parameters()])
    megabytes = sum(parameter.numel() * parameter.element_size() for parameter in gm.parameters()) / 1e6
    return Timing(name, len(gm.graph.nodes), megabytes, traced, inferred, planned, scored, shrunk, read)


def _timed(stage: Callable[[], T]) -> tuple[T, float]:
    """Return what a stage returns and its processor seconds, which do not pay for the garbage of earlier stages."""
    gc.collect()
    start = time.process_time()
    return stage(), time.process_time() - start


def timings_table(timings: list[Timing]) -> Table:
    """Return a table of all stages, the slowest plan first."""
    table = Table(title="processor seconds, and shares of the trace", title_justify="left", show_edge=False)
    columns = ("model", "nodes", "MB", "trace", "infer", "plan", "scored plan", "shrink", "read once")
    columns += ("infer + plan", "infer + scored", "shrink share")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for t in sorted(timings, key=lambda timing: -timing.scored_share):
        seconds = (f"{t.trace:.2f}", *(f"{value:.3f}" for value in (t.infer, t.plan, t.scored, t.shrink, t.read)))
        shares = (f"{share:.1%}" for share in (t.analysis_share, t.scored_share, t.shrink_share))
        table.add_row(t.name, str(t.nodes), f"{t.megabytes:.0f}", *seconds, *shares)
    return table
