"""Uneven choices where axes are gathered: masks of axes against a table of what each position means."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.axes import Axis, AxisSolver, Fibre, KeepMasks, Kind, coordinates, direct_sum, known_size, product
from graphprune.axes.gathering import gathered
from graphprune.errors import MaskError

OUTER, INNER, OTHER = 3, 4, 5


def meanings(axis: Axis) -> list[dict[int, int]]:
    """Return, for each position of an axis, the element of each leaf that it stands for, straight from the algebra."""
    if axis.kind is Kind.LEAF:
        return [{axis.identity: i} for i in range(known_size(axis))]
    parts = [meanings(part) for part in axis.parts]
    if axis.kind is Kind.SUM:
        return [meaning for part in parts for meaning in part]
    if axis.kind is Kind.GATHERED:
        assert axis.positions is not None
        return [parts[0][i] for i in axis.positions]
    return [{k: v for part in row for k, v in part.items()} for row in itertools.product(*parts)]


@st.composite
def leaves_and_masks(draw):
    outer, inner, other = Axis(OUTER), Axis(INNER), Axis(OTHER)
    count = draw(st.integers(1, INNER))
    rows = [draw(st.permutations(range(INNER)))[:count] for _ in range(OUTER)]
    keep = np.array([np.isin(np.arange(INNER), row) for row in rows])
    plain = {
        leaf.identity: np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any)))
        for leaf, size in ((outer, OUTER), (other, OTHER))
    }
    return outer, inner, other, keep, plain


def kept(meaning, inner, outer, keep, plain) -> bool:
    fibre = inner.identity not in meaning or keep[meaning[outer.identity], meaning[inner.identity]]
    return bool(fibre and all(plain[leaf][i] for leaf, i in meaning.items() if leaf in plain))


@settings(max_examples=40)
@given(leaves_and_masks(), st.data())
def test_products_beside_and_inside_gathered_axes(made, data):
    outer, inner, other, keep, plain = made
    positions = np.array(data.draw(st.lists(st.integers(0, OTHER - 1), min_size=1, max_size=8)))
    taken = gathered(other, positions)
    rows = product([outer, inner])
    masks = KeepMasks(plain, {inner.identity: Fibre(outer.identity, keep)})
    for axis in (
        product([outer, taken, inner]),
        product([taken, outer, inner]),
        direct_sum([rows, taken, product([outer, inner])]),
    ):
        expected = [kept(meaning, inner, outer, keep, plain) for meaning in meanings(axis)]
        mask = masks.mask(axis)
        assert (np.ones(known_size(axis), bool) if mask is None else mask).tolist() == expected
        assert masks.count(axis) == sum(expected)


@settings(max_examples=40)
@given(leaves_and_masks(), st.permutations(range(OUTER)))
def test_blocks_in_another_order_choose_for_their_own_elements(made, order):
    outer, inner, _, keep, plain = made
    blocks = gathered(outer, np.array(order))
    masks = KeepMasks(plain, {inner.identity: Fibre(outer.identity, keep)})
    flat = product([blocks, inner])
    expected = [kept(meaning, inner, outer, keep, plain) for meaning in meanings(flat)]
    mask = masks.mask(flat)
    assert (np.ones(known_size(flat), bool) if mask is None else mask).tolist() == expected
    for d, conditional in masks.tensor_masks([blocks, inner], [OUTER, INNER]):
        if d == 1:
            assert conditional.tolist() == keep[order].tolist()


@settings(max_examples=40)
@given(leaves_and_masks(), st.permutations(range(INNER)), st.permutations(range(OUTER)))
def test_elements_in_another_order_on_an_axis_of_their_own(made, order, block_order):
    outer, inner, _, keep, plain = made
    axes = [gathered(outer, np.array(block_order)), gathered(inner, np.array(order))]
    masks = KeepMasks(plain, {inner.identity: Fibre(outer.identity, keep)})
    if keep.all():
        return
    with pytest.raises(MaskError):
        masks.mask(axes[1])
    (conditional,) = [mask for d, mask in masks.tensor_masks(axes, [OUTER, INNER]) if d == 1]
    assert conditional.tolist() == keep[block_order][:, order].tolist()


def test_some_elements_of_a_block_are_refused():
    """Blocks would keep different numbers of them."""
    outer, inner = Axis(OUTER), Axis(INNER)
    masks = KeepMasks({}, {inner.identity: Fibre(outer.identity, np.eye(OUTER, INNER, dtype=bool))})
    with pytest.raises(MaskError):
        masks.count(product([outer, gathered(inner, np.array([2, 0]))]))


def test_coordinates_follow_gathered_axes():
    outer, inner = Axis(OUTER), Axis(INNER)
    axis = AxisSolver().gather(product([outer, inner]), np.arange(OUTER * INNER).reshape(OUTER, INNER).T.ravel())
    assert coordinates(axis, outer.identity, OUTER * INNER).tolist() == [*range(OUTER)] * INNER
    assert coordinates(axis, inner.identity, OUTER * INNER).tolist() == np.repeat(range(INNER), OUTER).tolist()
