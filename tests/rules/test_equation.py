"""Equations: what parses, what is refused and why, and what they make of axes."""

import pytest

from graphprune.axes import pin_of, resolve
from graphprune.rules.context import Inference
from graphprune.rules.equation import apply_equation, parse_equation


@pytest.mark.parametrize(
    ("text", "operands", "result"),
    [
        ("... i, o i, o -> ... o", (("...", "i"), ("o", "i"), ("o",)), ("...", "o")),
        ("b m k,b k n->b m n", (("b", "m", "k"), ("b", "k", "n")), ("b", "m", "n")),
        ("k, k -> ", (("k",), ("k",)), ()),
        ("V c, ... -> ... c", (("V", "c"), ("...",)), ("...", "c")),
    ],
)
def test_parse(text, operands, result):
    parsed = parse_equation(text)
    assert parsed.operands == operands
    assert parsed.result == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "exactly one '->'"),
        ("a -> b -> c", "exactly one '->'"),
        ("a bc -> a", "'bc' is neither a letter nor '...'"),
        ("a 1 -> a", "'1' is neither a letter nor '...'"),
        ("(a b) -> a", "'(a' is neither a letter nor '...'"),
        ("... a ... -> a", "more than one '...' in '... a ...'"),
        ("a -> a b", "'b' is in the result but in no operand"),
        ("a -> ... a", "'...' is in the result but in no operand"),
    ],
)
def test_malformed_equations_are_refused_by_name(text, message):
    with pytest.raises(ValueError) as caught:
        parse_equation(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def apply(text, *shapes):
    context = Inference()
    operands = [[context.solver.leaf(size) for size in shape] for shape in shapes]
    return operands, apply_equation(context, parse_equation(text), operands)


def test_a_letter_is_one_axis():
    (x, weight), result = apply("... i, o i -> ... o", (2, 3, 6), (4, 6))
    assert resolve(x[2]) is resolve(weight[1])
    assert [resolve(axis) for axis in result] == [resolve(x[0]), resolve(x[1]), resolve(weight[0])]


def test_a_capital_is_pinned():
    (table, indices), result = apply("V c, ... -> ... c", (10, 4), (2, 3))
    assert pin_of(table[0]) is not None
    assert [pin_of(axis) for axis in (*indices, table[1])] == [None] * 3
    assert len(result) == 3


def test_batches_broadcast():
    (left, right), result = apply("... m k, ... k n -> ... m n", (5, 1, 2, 3), (7, 3, 4))
    assert [resolve(axis).size for axis in result] == [5, 7, 2, 4]
    assert resolve(result[1]) is resolve(right[0])
    assert resolve(result[0]) is resolve(left[0])


def test_an_axis_of_size_one_says_nothing_of_its_partner():
    (first, second), result = apply("a b, a b -> a b", (1, 3), (2, 3))
    assert resolve(result[0]) is resolve(second[0])
    assert pin_of(second[0]) is None
    assert resolve(first[1]) is resolve(second[1])


def test_optional_operands_at_the_end_may_be_missing():
    (_, weight), result = apply("... i, o i, o -> ... o", (2, 6), (4, 6))
    assert resolve(result[-1]) is resolve(weight[0])
