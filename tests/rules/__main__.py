"""Prints what the rules know of every op: ``python -m tests.rules [--choices N]``.

Compares every rule with its op, at the shapes of its case and at random ones, for up to N choices of kept units each
(all choices where there are fewer), and looks for pins that are not needed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter

from graphprune.rules import supported_ops
from tests.rules.cases import CASES, Case
from tests.rules.expectations import OVER_PINNED, WITHOUT_CASE
from tests.rules.oracle import at_random_shapes, check
from tests.rules.over_pinning import over_pinned

ROW = "{:<16}{:>6}"


def main() -> int:
    """Print the table and return the number of wrong or unexplained rules."""
    parser = argparse.ArgumentParser(prog="python -m tests.rules", description=__doc__)
    parser.add_argument("--choices", type=int, default=20, help="choices of kept units for each case")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    _print_families()
    wrong: dict[str, str] = {}
    scaled = 0
    for case in CASES:
        problem = _problem(case, options.choices)
        larger = at_random_shapes(case, seed=2)
        scaled += larger is not None
        if not problem and larger is not None:
            problem = _problem(larger, options.choices)
        if problem:
            wrong[case.name] = problem
    print(f"\n{len(CASES)} cases, {scaled} of them also at random shapes: wrong = {len(wrong)}")
    _print_items(wrong)
    unexplained = _print_over_pinned()
    _print_pinned()
    return len(wrong) + unexplained


def _problem(case: Case, choices: int) -> str:
    try:
        check(case, choices)
    except Exception as error:  # whatever goes wrong is the finding
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def _print_families() -> None:
    rules = [rule for rule in supported_ops() if not rule.pin_reason]
    print(ROW.format("family", "ops"))
    for family, count in sorted(Counter(rule.family for rule in rules).items()):
        print(ROW.format(family, count))
    print(ROW.format("all", len(rules)))
    print(f"without a case: {len(WITHOUT_CASE)}")
    _print_items(WITHOUT_CASE)


def _print_over_pinned() -> int:
    found = {case.name: sorted(over_pinned(case)) for case in CASES}
    found = {name: places for name, places in found.items() if places}
    unexplained = [name for name in found if name not in OVER_PINNED]
    print(f"\npinned more than needed: {len(found)} cases, {len(unexplained)} without a reason")
    _print_grouped({name: OVER_PINNED.get(name, "NO REASON GIVEN") for name in found})
    return len(unexplained)


def _print_pinned() -> None:
    pinned = {rule.op.removeprefix("aten::"): rule.pin_reason for rule in supported_ops() if rule.pin_reason}
    print(f"\npinned on purpose: {len(pinned)} ops")
    _print_grouped(pinned)


def _print_grouped(reasons: dict[str, str]) -> None:
    for reason in dict.fromkeys(reasons.values()):
        print(f"  {reason}:")
        print("    " + ", ".join(name for name, other in reasons.items() if other == reason))


def _print_items(items: dict[str, str]) -> None:
    for name, text in items.items():
        print(f"  {name}: {text}")


if __name__ == "__main__":
    sys.exit(min(main(), 1))
