"""Where a compiled model spends its time: one row for each kernel call, measured while the whole model runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphprune.errors import BackendError
from graphprune.kernel_calls import KernelCall
from graphprune.tables import Column, render

if TYPE_CHECKING:
    from graphprune.runtime import Executor

_WARM_UP = 2


@dataclass(frozen=True)
class KernelTime:
    """One kernel call and its median time in seconds."""

    call: KernelCall
    seconds: float

    @property
    def gigaflops(self) -> float | None:
        """Billions of operations a second on non-zero weights; a multiply-accumulate counts as two."""
        return _rate(self.call.nonzero_macs, self.seconds)

    @property
    def dense_gigaflops(self) -> float | None:
        """The same with zeros counted as work: the speed a dense kernel would need to be as fast."""
        return _rate(self.call.macs, self.seconds)


@dataclass(frozen=True)
class Profile:
    """The time of each kernel call of a compiled model; ``print`` it for a table.

    Attributes:
        rows: one for each kernel call, in the order of the program.
        seconds: median time of a whole call of the model, measured without looking inside.
        repeats: how often each was measured.
    """

    rows: tuple[KernelTime, ...]
    seconds: float
    repeats: int

    @property
    def everything_else(self) -> float:
        """Seconds of a call that are in no kernel: allocation, checks, dispatch. 0 if that drowns in noise."""
        return max(0.0, self.seconds - sum(row.seconds for row in self.rows))

    @property
    def total(self) -> float:
        """Seconds of all rows and everything else: what shares are shares of."""
        return sum(row.seconds for row in self.rows) + self.everything_else

    def by_time(self) -> list[KernelTime]:
        """Return the rows, the slowest first."""
        return sorted(self.rows, key=lambda row: -row.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON data, the slowest rows first; times are in seconds."""
        rows = [
            {
                **row.call.as_dict(),
                "nonzero_macs": row.call.nonzero_macs,
                "seconds": row.seconds,
                "share": row.seconds / self.total,
                "gigaflops": row.gigaflops,
                "dense_gigaflops": row.dense_gigaflops,
            }
            for row in self.by_time()
        ]
        return {
            "seconds": self.seconds,
            "everything_else": self.everything_else,
            "repeats": self.repeats,
            "rows": rows,
        }

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return the columns' names and the rows as cells, the slowest first; everything else is the last row."""
        columns = ("layer", "kernel", "output", "density", "ms", "share", "GF/s", "GF/s dense")
        rows: list[tuple[Any, ...]] = [
            (
                row.call.layer,
                row.call.kernel,
                "x".join(str(size) for size in row.call.shape),
                None if row.call.density is None else f"{row.call.density:.1%}",
                f"{row.seconds * 1e3:.3f}",
                f"{row.seconds / self.total:.1%}",
                None if row.gigaflops is None else f"{row.gigaflops:.1f}",
                None if row.dense_gigaflops is None else f"{row.dense_gigaflops:.1f}",
            )
            for row in self.by_time()
        ]
        rest = self.everything_else
        rows.append(("everything else", None, None, None, f"{rest * 1e3:.3f}", f"{rest / self.total:.1%}", None, None))
        return columns, rows

    def __str__(self) -> str:
        """Return the table as text."""
        columns, rows = self.table()
        title = f"{self.seconds * 1e3:.3f} ms a call, {len(self.rows)} kernel calls, medians of {self.repeats}"
        return render(title, [Column(name, numeric=position > 2) for position, name in enumerate(columns)], rows)


def profile(executor: Executor, inputs: Sequence[Any], calls: Sequence[KernelCall], repeats: int = 20) -> Profile:
    """Measure a compiled model on flat inputs; ``calls`` says what its functions compute.

    Each round runs the model once as it is and once with a look at the clock before and after every function, so both
    meet the same load. Where the functions that ran are not those in ``calls``, rows carry the functions' names only.

    Raises:
        BackendError: if ``repeats`` is not positive, or the inputs do not fit.
    """
    if repeats < 1:
        raise BackendError(f"repeats must be at least 1, got {repeats}")
    for _ in range(_WARM_UP):
        executor.run(inputs)
        executor.time_functions(inputs)
    whole: list[float] = []
    rounds: list[list[tuple[str, float]]] = []
    for _ in range(repeats):
        start = time.perf_counter()
        executor.run(inputs)
        executor.synchronize()
        whole.append(time.perf_counter() - start)
        rounds.append(executor.time_functions(inputs))
    names = [name for name, _ in rounds[0]]
    if names != [call.function for call in calls]:
        calls = [KernelCall(name, name, "unknown", ()) for name in names]
    columns = zip(*([seconds for _, seconds in times] for times in rounds))
    medians = [statistics.median(column) for column in columns]
    rows = tuple(KernelTime(call, seconds) for call, seconds in zip(calls, medians, strict=True))
    return Profile(rows, statistics.median(whole), repeats)


def _rate(macs: int | None, seconds: float) -> float | None:
    return None if macs is None or not seconds else 2e-9 * macs / seconds
