"""Layered layouts: edges lead down, shared values share their bends, crossings go, results repeat."""

from hypothesis import given
from hypothesis import strategies as st

from graphprune.drawing.layers import Slot, arrange


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    edges = draw(st.lists(pairs, max_size=30, unique=True)) if count > 1 else []
    return count, [(source, target, source) for source, target in edges]


def paths(arrangement):
    """Return the (source item, target item) pairs that the pieces connect."""
    reached = set()
    for rank, layer in enumerate(arrangement.layers):
        for position, slot in enumerate(layer):
            if slot.item is not None:
                stack = [(rank, position)]
                while stack:
                    at = stack.pop()
                    for upper, start, end, value in arrangement.pieces:
                        if (upper, start) == at and value == slot.item:
                            below = arrangement.layers[upper + 1][end]
                            if below.item is None:
                                stack.append((upper + 1, end))
                            else:
                                reached.add((slot.item, below.item))
    return reached


@given(graphs())
def test_every_edge_is_drawn_downwards_and_no_other(graph):
    count, edges = graph
    arrangement = arrange(count, edges)
    assert paths(arrangement) == {(source, target) for source, target, _ in edges}
    items = [slot.item for layer in arrangement.layers for slot in layer if slot.item is not None]
    assert sorted(items) == list(range(count))
    assert arrange(count, list(reversed(edges))) == arrangement


def test_an_edge_past_a_layer_bends_there_once_for_all_its_readers():
    arrangement = arrange(4, [(0, 1, 7), (1, 2, 8), (0, 2, 7), (0, 3, 7), (2, 3, 9)])
    assert [len(layer) for layer in arrangement.layers] == [1, 2, 2, 1]
    assert Slot(None, 0, 7) in arrangement.layers[1] and Slot(None, 0, 7) in arrangement.layers[2]
    assert sum(value == 7 for *_, value in arrangement.pieces) == 5  # to 1, to a bend, on to 2 and a bend, on to 3


def test_crossings_are_removed():
    crossed = [(0, 5, 0), (1, 4, 1), (2, 3, 2)]
    pieces = arrange(6, crossed).pieces
    assert [(start, end) for _, start, end, _ in pieces] == [(0, 0), (1, 1), (2, 2)]


def test_entering_values_are_on_top_and_leaving_ones_at_the_bottom():
    layers = arrange(5, [(0, 2, 0), (1, 3, 1), (2, 3, 2), (3, 4, 3)], first=2, last=1).layers
    assert {slot.item for slot in layers[0]} == {0, 1}
    assert [slot.item for slot in layers[-1]] == [4]


def test_what_needs_nothing_stands_near_its_reader():
    layers = arrange(5, [(0, 1, 0), (1, 2, 1), (2, 4, 2), (3, 4, 3)]).layers
    assert {slot.item for slot in layers[2]} == {2, 3}
