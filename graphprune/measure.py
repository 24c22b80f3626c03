"""Times competing callables fairly: interleaved, so that a change in the machine's load hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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


PAUSE = 0.02
"""Seconds of rest before another candidate's turn: longer than engines let their idle threads spin for more work."""


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 2,
    limit: float = 20.0,
    turn: int = 1,
    pause: float = 0.0,
    self_timed: bool = False,
) -> dict[str, Timing]:
    """Time each candidate ``repeats`` times, in turns, each round starting with another one.

    Engines with threads of their own disturb each other: those of the last one still wait for work, spinning, when the
    next one starts. ``turn=4, pause=PAUSE`` lets them fall asleep, wakes the candidate's own by an untimed run,
    and then times four.

    Args:
        candidates: callables without arguments, by name.
        repeats: runs of each candidate to measure.
        warmup: rounds to run first and discard.
        limit: stop after this many seconds of measuring even if fewer rounds are done; at least one round is.
        turn: timed runs in a row.
        pause: seconds to sleep before each turn; if not zero, a run that is not timed follows it.
        self_timed: candidates return the seconds they took, as those do that run in another process.

    Raises:
        ValueError: if there is no candidate, or ``repeats`` or ``turn`` is not positive.
    """
    if not candidates or repeats < 1 or turn < 1:
        raise ValueError("interleaved() needs at least one candidate, one repeat and one run in a turn")
    for _ in range(warmup):
        for function in candidates.values():
            function()
    timed = candidates if self_timed else {name: _with_stopwatch(function) for name, function in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    start = time.perf_counter()
    for round_number in range(-(-repeats // turn)):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name] += _turn(timed[name], min(turn, repeats - round_number * turn), pause)
        if time.perf_counter() - start > limit:
            break
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def _with_stopwatch(function: Callable[[], object]) -> Callable[[], float]:
    """Return a callable that calls ``function`` and returns the seconds it took."""

    def run() -> float:
        before = time.perf_counter()
        function()
        return time.perf_counter() - before

    return run


def _turn(timed: Callable[[], Any], runs: int, pause: float) -> list[float]:
    if pause:
        time.sleep(pause)
        timed()
    return [timed() for _ in range(runs)]
