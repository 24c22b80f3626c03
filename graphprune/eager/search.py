"""Finds the values of a module's size attributes where the evidence leaves a choice: by running it."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from types import FunctionType

from torch import nn

from graphprune.eager.attributes import Correction
from graphprune.eager.trial import Fault

_MOST_TRIALS_PER_MODULE = 24
_MOST_TRIALS = 150
_MOST_SPOTS = 6

_NOT_RUN = ("__init__", "extra_repr", "reset_parameters")

Trial = Callable[[int], Fault | None]
"""Runs the model; gives up at something unexpected up to this position."""


def settle(corrections: Sequence[Correction], trial: Trial) -> Fault | None:
    """Write corrections, run, and change those of the modules that are to blame until the run succeeds.

    A choice that brings the model further is made in all modules of the same class at once.

    Returns:
        None if the model runs as expected, else the fault that no choice cures. The attributes are then in disorder.
    """
    for correction in corrections:
        correction.spot.write(correction.candidates[0])
    budget = [_MOST_TRIALS]
    fault = trial(0)
    while fault is not None:
        better = _improve(corrections, fault, trial, budget)
        if better is None:
            return fault if fault.suspects else _without_needless_changes(corrections, fault, trial)
        fault = better[0]
    return None


def _without_needless_changes(corrections: Sequence[Correction], fault: Fault, trial: Trial) -> Fault | None:
    """Where shapes are right and results are not, give attributes that no shape depends on their old values back.

    A distance that happens to equal the old number of heads is such an attribute.

    Returns:
        None if the results agree then, else the last fault.
    """
    changed: dict[tuple[type[nn.Module], str], list[Correction]] = defaultdict(list)
    for correction in corrections:
        if not correction.certain and correction.spot.value != correction.old:
            changed[type(correction.spot.owner), correction.spot.name].append(correction)
    for group in changed.values():
        values = [correction.spot.value for correction in group]
        for correction in group:
            correction.spot.write(correction.old)
        result = trial(fault.progress)
        if result is None:
            return None
        if not result.suspects:
            fault = result
            continue
        for correction, value in zip(group, values):
            correction.spot.write(value)
    return fault


def _improve(
    corrections: Sequence[Correction], fault: Fault, trial: Trial, budget: list[int]
) -> tuple[Fault | None] | None:
    """Try other values in one suspected module after the other; return the fault of the first that gets further."""
    for path in fault.suspects:
        open_ones = [c for c in corrections if c.spot.path == path and _is_open(c, fault)]
        current = [c.spot.value for c in open_ones]
        for values in itertools.islice(_alternatives(open_ones[:_MOST_SPOTS], current), _MOST_TRIALS_PER_MODULE):
            if budget[0] <= 0:
                return None
            budget[0] -= 1
            undo = _write_everywhere(corrections, open_ones, values)
            result = trial(fault.progress)
            if result is None or result.progress > fault.progress:
                return (result,)
            undo()
    return None


def _is_open(correction: Correction, fault: Fault) -> bool:
    """Say whether another value may cure the fault: there is one, and code that runs mentions the attribute."""
    if correction.certain or len(correction.candidates) < 2:
        return False
    return correction.spot.name in fault.names or correction.spot.name in _mentioned(type(correction.spot.owner))


@functools.cache
def _mentioned(module_class: type[nn.Module]) -> frozenset[str]:
    """Return the names that the methods of a module class mention, apart from those that only make or print it."""
    methods = {
        name: value
        for base in reversed(module_class.__mro__[:-1])
        if base is not nn.Module
        for name, value in vars(base).items()
    }
    codes = [
        value.__code__ for name, value in methods.items() if isinstance(value, FunctionType) and name not in _NOT_RUN
    ]
    return frozenset(name for code in codes for name in code.co_names)


def _alternatives(corrections: Sequence[Correction], current: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield other choices of values, those that differ from the current ones in few places first."""
    choices = itertools.product(*(c.candidates for c in corrections))
    here = tuple(current[: len(corrections)])
    ranked = sorted(
        choices,
        key=lambda values: (
            sum(a != b for a, b in zip(values, here)),
            sum(c.candidates.index(v) for c, v in zip(corrections, values)),
        ),
    )
    return iter(values for values in ranked if values != here)


def _write_everywhere(
    corrections: Sequence[Correction], chosen: Sequence[Correction], values: Iterable[int]
) -> Callable[[], None]:
    """Write values, and corresponding ones in other modules of the class; return a function that takes them back."""
    before = [(c.spot, c.spot.value) for c in corrections]
    for correction, value in zip(chosen, values):
        if correction.spot.value == value:
            continue
        for other in corrections:
            counterpart = _counterpart(other, correction, value)
            if counterpart is not None:
                other.spot.write(counterpart)

    def undo() -> None:
        for spot, value in before:
            if spot.value != value:
                spot.write(value)

    return undo


def _counterpart(other: Correction, chosen: Correction, value: int) -> int | None:
    """Return what ``value`` of ``chosen`` corresponds to in ``other``, or None if that is another attribute."""
    if other is chosen:
        return value
    a, b = other.spot, chosen.spot
    if type(a.owner) is not type(b.owner) or (a.name, a.index) != (b.name, b.index) or other.certain:
        return None
    ratio = Fraction(value, chosen.old)
    return next((candidate for candidate in other.candidates if Fraction(candidate, other.old) == ratio), None)
