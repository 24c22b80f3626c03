"""Every rule against its op: wrong rules, and rules that pin more than needed; see ``oracle`` and ``over_pinning``."""

import pytest

from graphprune.rules import supported_ops
from graphprune.rules.registry import rule_name
from tests.rules.cases import CASES
from tests.rules.expectations import OVER_PINNED, WITHOUT_CASE
from tests.rules.oracle import at_random_shapes, check, trace
from tests.rules.over_pinning import over_pinned

ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@ALL
def test_rule(case):
    analysis = check(case, limit=2)
    assert sum(dimension.size for dimension in analysis.dimensions) == case.free, str(analysis)


@ALL
def test_rule_at_random_shapes(case):
    scaled = at_random_shapes(case, seed=1)
    if scaled is None:
        pytest.skip("the arguments of this case spell sizes")
    check(scaled, limit=1)


def test_most_cases_have_random_shapes():
    assert sum(at_random_shapes(case, seed=1) is not None for case in CASES) > 0.6 * len(CASES)


@ALL
def test_nothing_is_pinned_without_need_or_reason(case):
    """A new over-pinning rule fails here, and so does a reason that no longer applies."""
    found = over_pinned(case)
    assert bool(found) == (case.name in OVER_PINNED), f"operand axes pinned without need: {sorted(found)}"


def test_every_registered_op_has_a_case():
    """A ratchet: a new rule comes with a case, or is a pin with its reason, or is listed in WITHOUT_CASE."""
    seen = {rule_name(node) for case in CASES for node in trace(case).graph.nodes if node.op == "call_function"}
    seen |= {name.removesuffix("_copy") for name in seen}
    ops = {rule.op for rule in supported_ops() if not rule.pin_reason}
    assert ops - seen - set(WITHOUT_CASE) == set()
    assert not set(WITHOUT_CASE) & seen, "these have a case now"


def test_expectations_name_cases():
    assert set(OVER_PINNED) <= {case.name for case in CASES}
