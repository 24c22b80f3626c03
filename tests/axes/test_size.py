"""Sizes with symbols are compared by value where forms differ."""

import sympy

from graphprune.axes import same_size

s, t = sympy.symbols("s t", positive=True, integer=True)


def test_forms_of_a_size_that_is_rounded_down():
    assert same_size((32 * s - 1) // 64 + 1, (s - 1) // 2 + 1)
    assert same_size(s * (t + 1), s * t + s)


def test_different_sizes():
    assert not same_size((32 * s - 1) // 64, (s - 1) // 3)
    assert not same_size(s, t)
    assert not same_size(4, 5)
    assert not same_size(s, 8)
