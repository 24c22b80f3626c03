"""Candidates take turns, each round starts with another one, and runs that only wake an engine are not timed."""

import pytest

from graphprune.measure import interleaved


def _measure(**options):
    calls: list[str] = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    return interleaved(candidates, **options), "".join(calls)


def test_one_run_of_each_in_turn():
    timings, calls = _measure(repeats=3, warmup=0)
    assert calls == "ab" + "ba" + "ab"
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_turns_with_a_pause_start_with_a_run_that_is_not_timed():
    timings, calls = _measure(repeats=3, warmup=1, turn=2, pause=0.001)
    assert calls == "ab" + "aaa" + "bbb" + "bb" + "aa"
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_the_limit_stops_after_a_whole_round():
    timings, _ = _measure(repeats=100, warmup=0, limit=0.0)
    assert [len(timing.seconds) for timing in timings.values()] == [1, 1]


def test_candidates_that_time_themselves_are_believed():
    timings = interleaved({"slow": lambda: 3.0, "fast": lambda: 0.5}, repeats=2, self_timed=True)
    assert (timings["slow"].seconds, timings["fast"].median) == ((3.0, 3.0), 0.5)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"turn": 0}])
def test_nothing_to_measure_is_an_error(options):
    with pytest.raises(ValueError, match="at least one"):
        _measure(**options)
