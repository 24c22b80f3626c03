"""Axes, sizes and keep-masks on their own."""

import numpy as np
import pytest
import sympy

from graphprune.axes import (
    Axis,
    AxisSolver,
    KeepMasks,
    Kind,
    Pin,
    direct_sum,
    exact_quotient,
    factors,
    leaves,
    multiply,
    pin_of,
    product,
    resolve,
    size_from,
    size_of,
    terms,
)
from graphprune.axes.axis import describe, is_unit

s0, s1 = sympy.symbols("s0 s1", positive=True, integer=True)


def masks(*pairs):
    return KeepMasks({axis.identity: np.array(mask, bool) for axis, mask in pairs})


# ------------------------------------------------------------------------------------------------------ structure


def test_product_is_flat_and_has_no_units():
    a, b, c, unit = Axis(2), Axis(3), Axis(5), Axis(1, pin=Pin("unit"))
    nested = product([unit, product([a, b]), unit, c])
    assert factors(nested) == [a, b, c]
    assert nested.size == 30
    assert product([unit, a]) is a


def test_product_of_nothing_is_a_unit():
    assert size_of(product([])) == 1
    assert is_unit(product([Axis(1, pin=Pin("unit"))]))


def test_sum_is_flat_and_has_no_empty_terms():
    a, b, empty = Axis(2), Axis(3), Axis(0, pin=Pin("empty"))
    nested = direct_sum([empty, direct_sum([a, b]), a])
    assert terms(nested) == [a, b, a]
    assert nested.size == 7
    assert direct_sum([a, empty]) is a
    assert size_of(direct_sum([empty])) == 0


def test_a_unit_that_was_split_off_stays_in_products():
    solver = AxisSolver()
    head, rest = solver.split(solver.leaf(4), 1)
    assert not is_unit(head)
    assert factors(product([head, rest])) == [head, rest]
    solver.pin(head, "selected")
    assert factors(product([head, rest])) == [rest]


def test_resolve_shortens_chains():
    a, b, c = Axis(4), Axis(4), Axis(4)
    a.link, b.link = b, c
    assert resolve(a) is c
    assert a.link is c


def test_leaves_are_distinct_and_in_order():
    a, b = Axis(2), Axis(3)
    assert leaves(direct_sum([product([a, b]), b, a])) == [a, b]


def test_an_axis_pinned_throughout_collapses():
    a, b = Axis(2, pin=Pin("first")), Axis(3)
    axis = product([a, b])
    assert pin_of(axis) is None
    b.pin = Pin("second")
    assert pin_of(axis) == Pin("second")
    assert axis.kind is Kind.LEAF and axis.size == 6


def test_description():
    a, b, pinned = Axis(12), Axis(64), Axis(3, pin=Pin("no"))
    text = describe(product([pinned, a, b]))
    assert text == f"(3! * 12#{a.identity} * 64#{b.identity})"
    many = describe(direct_sum([Axis(2) for _ in range(20)]))
    assert "..." in many and len(many) < 120


# ------------------------------------------------------------------------------------------------------ sizes


def test_multiply_keeps_integers_and_simplifies_symbols():
    assert multiply([]) == 1
    assert multiply([2, 3]) == 6
    assert multiply([2, s0, 3]) == 6 * s0


@pytest.mark.parametrize(
    ("size", "divisor", "expected"),
    [
        (12, 4, 3),
        (12, 5, None),
        (12, 0, None),
        (12 * s0, 4, 3 * s0),
        (12 * s0, s0, 12),
        (s0 * s1, s0, s1),
        (s0, 2, None),
        (s0, s1, None),
        (4 * s0 + 4, 4, s0 + 1),
    ],
)
def test_exact_quotient(size, divisor, expected):
    assert exact_quotient(size, divisor) == expected


def test_size_from_integer():
    assert size_from(7) == 7 and isinstance(size_from(np.int64(7)), int)


# ------------------------------------------------------------------------------------------------------ masks


def test_no_mask_means_everything_is_kept():
    a = Axis(3)
    nothing = masks((a, [1, 1, 1]))
    assert nothing.mask(a) is None
    assert not nothing.changes(a)
    assert nothing.count(a) == 3
    assert nothing.kept_before(a, 2) == 2


def test_masks_of_products_and_sums():
    a, b = Axis(2), Axis(3)
    keep = masks((a, [1, 0]), (b, [0, 1, 1]))
    assert keep.mask(product([a, b])).tolist() == [False, True, True, False, False, False]
    assert keep.mask(direct_sum([b, a])).tolist() == [False, True, True, True, False]
    assert keep.count(product([a, b])) == 2
    assert keep.count(direct_sum([b, a])) == 3
    assert keep.kept_before(direct_sum([b, a]), 3) == 2


def test_dynamic_axes():
    batch, heads = Axis(s0, pin=Pin("dynamic")), Axis(4)
    keep = masks((heads, [1, 0, 0, 1]))
    both = product([batch, heads])
    assert keep.count(both) == 2 * s0
    ((d, mask),) = keep.tensor_masks([product([batch, Axis(5)]), both, Axis(3)], [10, 8, 3])
    assert d == 1 and mask.tolist() == [True, False, False, True] * 2
    ((_, mask),) = keep.tensor_masks([heads], [4])
    assert mask.tolist() == [True, False, False, True]
