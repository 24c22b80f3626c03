"""Times variants of a model side by side and prints what they cost and how well they still do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import fx, nn

import graphprune as gp
from graphprune.analysis import analyze
from graphprune.measure import PAUSE, interleaved


@dataclass
class Variant:
    """One form of the model: the original, or what passes and fine-tuning made of it.

    Attributes:
        name: what was done.
        model: runs in torch; for the compiled form a graph traced for exactly ``inputs``.
        score: the task's own measures, by name, as shown.
        milliseconds: median run times, by engine.
    """

    name: str
    model: nn.Module | fx.GraphModule
    score: dict[str, str] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    compiled: Callable[..., Any] | None = None

    @property
    def cost(self) -> dict[str, int]:
        """Parameters that are not zero, and MACs of the layers as they are stored, zeros included."""
        parameters = {id(parameter): parameter for parameter in self.model.parameters()}.values()
        return {"non-zero parameters": sum(int(parameter.count_nonzero()) for parameter in parameters)}


def retrace(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """Trace a model, or a graph with a dynamic batch, for inputs of exactly these shapes."""
    from graphprune.tracing.trace import trace

    return trace(torch.export.export(model, inputs))


def macs(graph: fx.GraphModule) -> int:
    """Return the multiply-accumulates of one run of a traced graph."""
    return analyze(graph).cost()["macs"]


def compare_speed(variants: Sequence[Variant], inputs: tuple[torch.Tensor, ...], seconds: float) -> float:
    """Compile every variant for ``inputs`` and time all of them, in torch and compiled, in alternating runs.

    Returns:
        The largest difference between a compiled variant and the same graph in torch, relative to the largest output.
    """
    candidates: dict[str, Callable[[], object]] = {}
    worst = 0.0
    for variant in variants:
        graph = retrace(variant.model, inputs)
        compiled = gp.compile(graph)
        with torch.inference_mode():
            expected = variant.model(*inputs)
            worst = max(worst, ((compiled(*inputs) - expected).abs().max() / expected.abs().max()).item())
        candidates[f"{variant.name}/torch"] = lambda model=variant.model: model(*inputs)
        candidates[f"{variant.name}/compiled"] = lambda compiled=compiled: compiled(*inputs)
    with torch.inference_mode():
        timings = interleaved(candidates, repeats=1000, warmup=3, limit=seconds, turn=4, pause=PAUSE)
    for variant in variants:
        for engine in ("torch", "compiled"):
            variant.milliseconds[engine] = timings[f"{variant.name}/{engine}"].median * 1e3
    return worst


def print_comparison(title: str, variants: Sequence[Variant]) -> None:
    """Print one row for each variant; speed-ups are against the first variant in torch."""
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("variant")
    for column in (*variants[0].cost, *variants[0].score, "torch ms", "compiled ms", "speed-up"):
        table.add_column(column, justify="right")
    reference = variants[0].milliseconds["torch"]
    for variant in variants:
        torch_time, compiled_time = variant.milliseconds["torch"], variant.milliseconds["compiled"]
        costs = [f"{value / 1e6:.2f}M" for value in variant.cost.values()]
        times = [f"{torch_time:.2f}", f"{compiled_time:.2f}", f"{reference / compiled_time:.2f}×"]
        table.add_row(variant.name, *costs, *variant.score.values(), *times)
    Console(width=None if Console().is_terminal else 130, highlight=False).print(table)
