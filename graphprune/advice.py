"""What pruning would buy on one machine, as plain data: measured layer by layer, added up for the whole model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from graphprune.layer_shapes import LayerShape
from graphprune.tables import Column, render
from graphprune.whole_files import written_whole

WORTH_IT = 1.05
"""The speed-up from which on advice speaks of a gain: less drowns in noise."""


@dataclass(frozen=True)
class SparsePoint:
    """The sparse kernel of one layer at one sparsity: seconds for one call, and bytes of its packed weight."""

    sparsity: float
    seconds: float
    weight_bytes: int


@dataclass(frozen=True)
class LayerCurve:
    """How the layers of one shape fare with zeros.

    Attributes:
        shape: their shape.
        layers: paths of their weights.
        seconds: what all of them together take in the dense model, from its profile.
        dense: seconds of the dense kernel on its own, or None if there was no time to measure it.
        dense_bytes: bytes of one layer's weight as the dense kernel wants it.
        sparse: the sparse kernel at increasing sparsity, measured in turns with the dense one.
        reason: why ``sparse`` is empty.
    """

    shape: LayerShape
    layers: tuple[str, ...]
    seconds: float
    dense: float | None = None
    dense_bytes: int = 0
    sparse: tuple[SparsePoint, ...] = ()
    reason: str = ""

    def speedup(self, sparsity: float) -> float | None:
        """Return dense time over sparse time at a measured sparsity, else None."""
        seconds = next((point.seconds for point in self.sparse if point.sparsity == sparsity), None)
        return None if seconds is None or self.dense is None else self.dense / seconds

    @property
    def break_even(self) -> float | None:
        """The sparsity from which on the sparse kernel is faster; the lowest measured one if it is so already there.

        On a straight line between measured points; None if it never is.
        """
        return crossing([(point.sparsity, self.speedup(point.sparsity) or 0.0) for point in self.sparse], 1.0)


@dataclass(frozen=True)
class Prediction:
    """The whole model after pruning.

    Attributes:
        amount: sparsity, or fraction of channels removed.
        seconds: predicted time of a call.
        speedup: the dense model's time over it.
        weight_bytes: bytes of all weights as kernels want them, most of the artifact.
        measured: fraction of the dense model's layer time whose shapes were measured; the rest is extrapolated.
    """

    amount: float
    seconds: float
    speedup: float
    weight_bytes: int
    measured: float


@dataclass(frozen=True)
class Advice:
    """What pruning would buy; ``print`` it for tables and a recommendation.

    Attributes:
        target: what it was measured for.
        threads: how many threads ran.
        seconds: time of a call of the dense model.
        rest: the part of it that is in no convolution or linear layer, or in one that could not be measured.
        weight_bytes: bytes of the dense model's weights.
        curves: one entry for each distinct shape of layers, those that take longest first.
        unstructured: predictions at increasing sparsity, every layer with the faster of its two kernels.
        structured: predictions for removed channels.
        notes: what could not be measured, and why.
        stopped: "" if everything was measured, else "time limit" or "interrupted".
    """

    target: str
    threads: int
    seconds: float
    rest: float
    weight_bytes: int
    curves: tuple[LayerCurve, ...] = ()
    unstructured: tuple[Prediction, ...] = ()
    structured: tuple[Prediction, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def partial(self) -> bool:
        """Whether some shapes were not measured."""
        return bool(self.stopped)

    @property
    def break_even(self) -> float | None:
        """The sparsity from which on the whole model gains ``WORTH_IT``; None if it never does."""
        return crossing([(point.amount, point.speedup) for point in self.unstructured], WORTH_IT)

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as JSON data; times are in seconds."""
        return {
            "target": self.target,
            "threads": self.threads,
            "seconds": self.seconds,
            "rest": self.rest,
            "weight_bytes": self.weight_bytes,
            "break_even": self.break_even,
            "recommendation": self.recommendation(),
            "unstructured": [dict(vars(point)) for point in self.unstructured],
            "structured": [dict(vars(point)) for point in self.structured],
            "curves": [_curve_as_dict(curve) for curve in self.curves],
            "notes": list(self.notes),
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Advice:
        """Return the advice that :meth:`as_dict` described."""
        plain = {key: data[key] for key in ("target", "threads", "seconds", "rest", "weight_bytes", "stopped")}
        return cls(
            **plain,
            curves=tuple(_curve_from_dict(curve) for curve in data["curves"]),
            unstructured=tuple(Prediction(**point) for point in data["unstructured"]),
            structured=tuple(Prediction(**point) for point in data["structured"]),
            notes=tuple(data["notes"]),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the advice as JSON and return the path."""
        path = Path(path)
        with written_whole(path) as file:
            file.write_text(json.dumps(self.as_dict(), indent=1), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Advice:
        """Read what :meth:`save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw speed-up over sparsity, with break-evens, to an image file (.png, .svg, .pdf) and return its path.

        Raises:
            GraphPruneError: if matplotlib is not installed.
        """
        from graphprune.advice_plot import plot_advice

        return plot_advice(self, Path(path))

    def recommendation(self) -> str:
        """Return a few sentences on what pays here, drawn from the predictions."""
        from graphprune.recommendation import recommend

        return recommend(self)

    def __str__(self) -> str:
        """Return tables by amount and by layer, the notes and the recommendation."""
        parts = [self._prediction_table(), self._curve_table()]
        parts += [f"note: {note}" for note in self.notes]
        parts.append(self.recommendation())
        return "\n\n".join(parts)

    def _prediction_table(self) -> str:
        title = (
            f"predicted for {self.target}, {self.threads} {'thread' if self.threads == 1 else 'threads'}"
            f"{f' (partial: {self.stopped})' if self.stopped else ''}"
        )
        columns = [
            Column("what"),
            *(Column(name, numeric=True) for name in ("ms", "speed-up", "weights MB", "measured")),
        ]
        dense = Prediction(0.0, self.seconds, 1.0, self.weight_bytes, 1.0)
        rows = [_prediction_row("dense, as it is", dense)]
        rows += [_prediction_row(f"{point.amount:.0%} zeros", point) for point in self.unstructured]
        rows += [_prediction_row(f"{point.amount:.0%} of channels removed", point) for point in self.structured]
        return render(title, columns, rows)

    def _curve_table(self) -> str:
        sparsities = sorted({point.sparsity for curve in self.curves for point in curve.sparse})
        names = ("layers", "ms", "share", *(f"{sparsity:.0%}" for sparsity in sparsities), "break-even")
        columns = [Column("shape"), *(Column(name, numeric=True) for name in names), Column("")]
        rows = []
        for curve in self.curves:
            speedups = [curve.speedup(sparsity) for sparsity in sparsities]
            cells = [None if speedup is None else f"{speedup:.2f}×" for speedup in speedups]
            even = spell_break_even(curve.break_even, sparsities) if curve.sparse else None
            share = f"{curve.seconds / self.seconds:.1%}"
            rows.append(
                (curve.shape, len(curve.layers), f"{curve.seconds * 1e3:.3f}", share, *cells, even, curve.reason)
            )
        rows.append(("everything else", None, f"{self.rest * 1e3:.3f}", f"{self.rest / self.seconds:.1%}"))
        return render("layers: speed-up of the sparse kernel over the dense one, by sparsity", columns, rows)


def crossing(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Return where the last rise of a curve of (x, y) points to ``level`` is, on straight lines; None if it ends below.

    The first x if the curve never is below.
    """
    if not points or points[-1][1] < level:
        return None
    found = points[0][0]
    for (x, y), (next_x, next_y) in pairwise(points):
        if y < level <= next_y:
            found = x + (next_x - x) * (level - y) / (next_y - y)
    return found


def spell_break_even(sparsity: float | None, measured: Sequence[float]) -> str:
    """Spell a break-even: ``72%``, ``≤ 50%`` at the lowest measured sparsity, ``none``."""
    if sparsity is None:
        return "none"
    return f"{'≤ ' if measured and sparsity <= measured[0] else ''}{sparsity:.0%}"


def _prediction_row(what: str, point: Prediction) -> tuple[object, ...]:
    size = f"{point.weight_bytes / 1e6:.1f}"
    return (what, f"{point.seconds * 1e3:.2f}", f"{point.speedup:.2f}×", size, f"{point.measured:.0%}")


def _curve_as_dict(curve: LayerCurve) -> dict[str, Any]:
    return {
        **vars(curve),
        "shape": curve.shape.as_dict(),
        "layers": list(curve.layers),
        "sparse": [{**vars(point), "speedup": curve.speedup(point.sparsity)} for point in curve.sparse],
        "break_even": curve.break_even,
    }


def _curve_from_dict(data: Mapping[str, Any]) -> LayerCurve:
    points = [{key: value for key, value in point.items() if key != "speedup"} for point in data["sparse"]]
    changed = {
        "shape": LayerShape.from_dict(data["shape"]),
        "layers": tuple(data["layers"]),
        "sparse": tuple(SparsePoint(**point) for point in points),
    }
    return LayerCurve(**{key: value for key, value in data.items() if key != "break_even"} | changed)
