"""What a compilation did, layer by layer, as plain data that prints as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphprune.graph import PassRecord
from graphprune.kernel_calls import KernelCall


@dataclass(frozen=True)
class LayerTiming:
    """What measuring said about one layer.

    Attributes:
        choice: the fastest way to compute it.
        seconds: its time.
        default_seconds: the time of what the cost models would have chosen, in the same run.
        origin: "measured" in this compilation, or "cached" from an earlier one.
    """

    choice: str
    seconds: float
    default_seconds: float
    origin: str

    def __str__(self) -> str:
        """Return one phrase for a table."""
        gain = self.default_seconds / self.seconds if self.seconds else 1.0
        return (
            f"{self.origin}: {self.seconds * 1e6:,.0f} us, default {self.default_seconds * 1e6:,.0f} us ({gain:.2f}x)"
        )


@dataclass(frozen=True)
class LayerReport:
    """How one layer was lowered.

    Attributes:
        name: path of the layer's weight, or the node's name where there is none.
        kind: "linear", "conv2d", "matmul", "attention".
        shape: the weight's shape, or both operands' shapes after one another.
        density: fraction of the weight's entries that are not zero, or None.
        kernel: name of the kernel, or "relax" for TVM's own op with the generic schedule.
        note: the kernel's own words about its choices.
        reason: why this kernel: why dense, or why not ours.
        timing: what tuning measured; None for a layer that was not tuned.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    density: float | None
    kernel: str
    note: str
    reason: str
    timing: LayerTiming | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "density": self.density,
            "kernel": self.kernel,
            "note": self.note,
            "reason": self.reason,
            "timing": None if self.timing is None else vars(self.timing),
        }


@dataclass(frozen=True)
class CompileReport:
    """The record of a compilation; ``print`` it for a table.

    Attributes:
        target: the target, spelt out.
        layers: one entry for each layer and product.
        passes: what each pass did and how long it took.
        unscheduled: name of each generic function of which some part was left unscheduled -> reason.
        seconds: time of tracing and passes, of lowering, and of building.
        calls: every call of a compiled function in the order of the program, which profiles read.
    """

    target: str
    layers: tuple[LayerReport, ...]
    passes: tuple[PassRecord, ...] = ()
    unscheduled: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: tuple[KernelCall, ...] = ()

    @property
    def tuned(self) -> bool:
        """Whether any layer was chosen by measurement."""
        return any(layer.timing is not None for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "target": self.target,
            "layers": [layer.as_dict() for layer in self.layers],
            "passes": [{"spec": p.spec, "seconds": p.seconds, "summary": p.summary} for p in self.passes],
            "unscheduled": dict(self.unscheduled),
            "seconds": dict(self.seconds),
            "calls": [call.as_dict() for call in self.calls],
        }

    def __str__(self) -> str:
        """Return one line for each layer, then passes and totals."""
        rows = [("layer", "kind", "shape", "density", "kernel", "note", "reason", "tuning" if self.tuned else "")]
        for layer in self.layers:
            density = "" if layer.density is None else f"{layer.density:.1%}"
            shape = "x".join(str(size) for size in layer.shape)
            rows.append(
                (
                    layer.name,
                    layer.kind,
                    shape,
                    density,
                    layer.kernel,
                    layer.note,
                    layer.reason,
                    str(layer.timing or ""),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append("")
        lines += [f"pass {record.spec}: {record.seconds:.2f} s" for record in self.passes]
        lines += [f"not fully scheduled: {name}: {reason}" for name, reason in self.unscheduled.items()]
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        lines.append(f"target {self.target}; {times}")
        return "\n".join(lines)
