"""Cuts the edges of a graph at the borders of nested calls, so that each call can be arranged by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphprune.drawing.calls import Call, parents
from graphprune.drawing.layers import Arrangement, arrange


@dataclass
class _Inside:
    """What flows inside one call; values are numbers of the nodes that compute them."""

    entering: dict[int, None] = field(default_factory=dict)
    leaving: dict[int, None] = field(default_factory=dict)
    flows: dict[tuple[int | None, int | None, int], None] = field(default_factory=dict)


@dataclass(frozen=True)
class NestedArrangement:
    """The arrangement of one call.

    Attributes:
        items: what the item numbers of ``arrangement`` stand for: ("in", value), ("child", number), ("out", value).
        arrangement: entering values in its top layer, leaving values in its bottom layer.
    """

    items: list[tuple[str, int]]
    arrangement: Arrangement


def arrange_calls(calls: Sequence[Call], edges: Iterable[tuple[int, int]]) -> dict[int, NestedArrangement]:
    """Return the arrangement of each call.

    Args:
        calls: the call tree.
        edges: (number of the node that computes a value, number of a node that reads it).
    """
    parent = parents(calls)
    inside: dict[int, _Inside] = defaultdict(_Inside)
    for value, reader in edges:
        _cut(value, reader, parent, inside)
    return {call.identity: _arrange(call, inside[call.identity]) for call in calls}


def _cut(value: int, reader: int, parent: dict[int, int], inside: dict[int, _Inside]) -> None:
    upward, downward = _chain(value, parent), _chain(reader, parent)
    common = next(call for call in upward if call in downward)
    source = value
    for call in upward[1 : upward.index(common)]:
        inside[call].leaving[value] = None
        inside[call].flows[source, None, value] = None
        source = call
    target = reader
    for call in downward[1 : downward.index(common)]:
        inside[call].entering[value] = None
        inside[call].flows[None, target, value] = None
        target = call
    inside[common].flows[source, target, value] = None


def _chain(number: int, parent: dict[int, int]) -> list[int]:
    chain = [number]
    while chain[-1] in parent:
        chain.append(parent[chain[-1]])
    return chain


def _arrange(call: Call, inside: _Inside) -> NestedArrangement:
    entering, leaving = sorted(inside.entering), sorted(inside.leaving)
    items = [("in", value) for value in entering]
    items += [("child", child) for child in call.children]
    items += [("out", value) for value in leaving]
    number = {item: position for position, item in enumerate(items)}
    edges = [
        (
            number["in", value] if source is None else number["child", source],
            number["out", value] if target is None else number["child", target],
            value,
        )
        for source, target, value in inside.flows
    ]
    return NestedArrangement(items, arrange(len(items), edges, len(entering), len(leaving)))
