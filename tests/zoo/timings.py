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
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.zoo.models import make

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Processor seconds of each stage; ``plan`` is scoring every weight and choosing, ``shrink`` has its self-check.

    ``read`` is what it takes to read all weights once, of so many ``megabytes``: planning cannot take less.
    """

    name: str
    nodes: int
    megabytes: float
    trace: float
    infer: float
    plan: float
    shrink: float
    read: float

    @property
    def analysis_share(self) -> float:
        """Inference and plan as a fraction of the trace."""
        return (self.infer + self.plan) / self.trace

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
        plan, planned = _timed(lambda: PruneChannels(ratio=0.5).plan(gm, analysis=analysis))
        _, shrunk = _timed(lambda: shrink(gm, plan, analysis=analysis))
        _, read = _timed(lambda: [parameter.detach().sum() for parameter in gm.parameters()])
    megabytes = sum(parameter.numel() * parameter.element_size() for parameter in gm.parameters()) / 1e6
    return Timing(name, len(gm.graph.nodes), megabytes, traced, inferred, planned, shrunk, read)


def _timed(stage: Callable[[], T]) -> tuple[T, float]:
    """Return what a stage returns and its processor seconds, which do not pay for the garbage of earlier stages."""
    gc.collect()
    start = time.process_time()
    return stage(), time.process_time() - start


def timings_table(timings: list[Timing]) -> Table:
    """Return a table of all stages, the slowest analysis first."""
    table = Table(title="processor seconds, and shares of the trace", title_justify="left", show_edge=False)
    columns = ("model", "nodes", "MB", "trace", "infer", "plan", "shrink", "read once", "infer + plan", "shrink share")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for t in sorted(timings, key=lambda timing: -timing.analysis_share):
        seconds = (f"{t.trace:.2f}", *(f"{value:.3f}" for value in (t.infer, t.plan, t.shrink, t.read)))
        table.add_row(
            t.name, str(t.nodes), f"{t.megabytes:.0f}", *seconds, f"{t.analysis_share:.1%}", f"{t.shrink_share:.1%}"
        )
    return table
