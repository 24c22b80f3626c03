"""Draws advice with matplotlib, which is imported only here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from graphprune.advice import Advice

_LISTED = 6


def plot_advice(advice: Advice, path: Path) -> Path:
    """Draw the model's curve thick, the layers' thin, break-evens dotted, removed channels as squares.

    Raises:
        GraphPruneError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]  # optional
    except ImportError as error:
        raise GraphPruneError(
            "plots need matplotlib, which is not installed", hint="pip install 'graphprune[plot]', or matplotlib alone"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    _draw_layers(axes, advice)
    _draw_model(axes, advice)
    axes.set(xlabel="zeros in weights, or channels removed (%)", ylabel="speed-up over the dense model or layer (×)")
    axes.set_title(f"{advice.target}, {advice.threads} {'thread' if advice.threads == 1 else 'threads'}")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    return path


def _draw_layers(axes: Any, advice: Advice) -> None:
    measured = [curve for curve in advice.curves if curve.sparse]
    for position, curve in enumerate(measured):
        x = [100 * point.sparsity for point in curve.sparse]
        y = [curve.speedup(point.sparsity) for point in curve.sparse]
        label = str(curve.shape) if position < _LISTED else None
        axes.plot(x, y, linewidth=0.8, alpha=0.7, label=label, color=None if label else "0.8")


def _draw_model(axes: Any, advice: Advice) -> None:
    if advice.unstructured:
        x = [100 * point.amount for point in advice.unstructured]
        axes.plot(x, [point.speedup for point in advice.unstructured], "ko-", linewidth=2.5, label="whole model, zeros")
    if advice.break_even is not None:
        label = f"break-even {advice.break_even:.0%}"
        axes.axvline(100 * advice.break_even, color="black", linestyle=":", label=label)
    if advice.structured:
        x = [100 * point.amount for point in advice.structured]
        y = [point.speedup for point in advice.structured]
        axes.plot(x, y, "s--", color="tab:red", label="whole model, channels removed")
