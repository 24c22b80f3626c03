"""Turns predictions into sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.advice import WORTH_IT, crossing, spell_break_even

if TYPE_CHECKING:
    from graphprune.advice import Advice, Prediction


def recommend(advice: Advice) -> str:
    """Return what pays on this machine: from which sparsity on, how much, and how removing channels compares."""
    sentences = [_about_zeros(advice), *_about_channels(advice), *_about_the_rest(advice), *_about_gaps(advice)]
    return " ".join(sentences)


def _about_zeros(advice: Advice) -> str:
    points = advice.unstructured
    if not points:
        return "Nothing was measured, so there is nothing to recommend."
    most = points[-1]
    if advice.break_even is None:
        return f"Zeros do not pay here: even {most.amount:.0%} of them make the model only {most.speedup:.2f}× as fast."
    start = spell_break_even(advice.break_even, [point.amount for point in points])
    gains = ", ".join(f"{point.speedup:.1f}× at {point.amount:.0%}" for point in points if point.speedup >= WORTH_IT)
    return f"Zeros in weights pay from {start} sparsity on: {gains}."


def _about_channels(advice: Advice) -> list[str]:
    sentences = []
    for point in advice.structured:
        if point.speedup < WORTH_IT:
            sentences.append(f"Removing {point.amount:.0%} of the channels does not pay ({point.speedup:.2f}×).")
            continue
        sentence = f"Removing {point.amount:.0%} of the channels gives {point.speedup:.1f}×"
        curve = [(zeros.amount, zeros.speedup) for zeros in advice.unstructured]
        equal = crossing(curve, point.speedup)
        if equal is not None:
            sentence += f", as much as {spell_break_even(equal, [amount for amount, _ in curve])} zeros"
        elif curve:
            sentence += ", more than any measured sparsity"
        sentences.append(sentence + ".")
    return sentences


def _about_the_rest(advice: Advice) -> list[str]:
    share = advice.rest / advice.seconds if advice.seconds else 0.0
    if share < 0.1:
        return []
    limit = f": at most {1 / share:.1f}× whatever the zeros" if advice.unstructured else ""
    return [f"{share:.0%} of the time is in no layer that zeros could speed up{limit}."]


def _about_gaps(advice: Advice) -> list[str]:
    points: list[Prediction] = [*advice.unstructured, *advice.structured]
    least = min((point.measured for point in points), default=1.0)
    if not advice.stopped:
        return []
    return [
        f"Measuring ended early ({advice.stopped}): as little as {least:.0%} of a prediction's layers were measured."
    ]
