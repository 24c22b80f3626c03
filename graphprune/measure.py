"""Times competing callables fairly: interleaved, so that a change in the machine's load hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The run times of one candidate, in seconds, in the order they were measured."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, which a few disturbed runs do not move."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """The fastest run: the closest to an undisturbed machine."""
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile; a wide gap says that the machine was busy."""
        if len(self.seconds) == 1:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 2,
    limit: float = 20.0,
) -> dict[str, Timing]:
    """Time each candidate ``repeats`` times, one run of each in turn, each round starting with another one.

    Args:
        candidates: callables without arguments, by name.
        repeats: rounds to measure.
        warmup: rounds to run first and discard.
        limit: stop after this many seconds of measuring even if fewer rounds are done; at least one round is.

    Raises:
        ValueError: if there is no candidate or ``repeats`` is not positive.
    """
    if not candidates or repeats < 1:
        raise ValueError("interleaved() needs at least one candidate and one repeat")
    for _ in range(warmup):
        for function in candidates.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    start = time.perf_counter()
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            before = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - before)
        if time.perf_counter() - start > limit:
            break
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}
