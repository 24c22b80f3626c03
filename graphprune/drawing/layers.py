"""Layers a directed acyclic graph from top to bottom and orders each layer so that few edges cross."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 8

Edge = tuple[int, int, int]
"""Source item, target item, and the number of the value that flows between them."""


@dataclass(frozen=True)
class Slot:
    """A place in a layer: an item, or (``item`` is None) a bend of edges that pass through the layer.

    Attributes:
        item: the item's number, or None.
        source: of a bend, the item where its edges start.
        value: of a bend, the value that flows through it.
    """

    item: int | None
    source: int = -1
    value: int = -1


@dataclass(frozen=True)
class Arrangement:
    """A layered graph.

    Attributes:
        layers: the slots of each layer, left to right.
        pieces: (layer, position in it, position in the next layer, value): edges cut where they meet layers, so that
            all edges of one value from one item share their bends.
    """

    layers: list[list[Slot]]
    pieces: list[tuple[int, int, int, int]]


def arrange(count: int, edges: Sequence[Edge], first: int = 0, last: int = 0) -> Arrangement:
    """Arrange items 0 to ``count - 1``, numbered so that every edge leads to a higher number.

    The ``first`` items with the lowest numbers are alone in the top layer, the ``last`` ones in the bottom layer. The
    result depends on nothing but the arguments.
    """
    edges = sorted(set(edges))
    ranks = _ranks(count, edges, first, last)
    layers, links = _with_bends(count, edges, ranks)
    _reduce_crossings(layers, links)
    positions = [{slot: position for position, slot in enumerate(layer)} for layer in layers]
    pieces = [
        (rank, positions[rank][upper], positions[rank + 1][lower], value)
        for rank, pairs in enumerate(links)
        for upper, lower, value in pairs
    ]
    return Arrangement(layers, sorted(pieces))


def _ranks(count: int, edges: Sequence[Edge], first: int, last: int) -> list[int]:
    """Rank items by their longest path from the top, then lower those that would rather be near their readers."""
    sources, targets = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for source, target, _ in edges:
        sources[target].add(source)
        targets[source].add(target)
    base = 1 if first else 0
    ranks = [0] * count
    for item in range(count):
        ranks[item] = 0 if item < first else max((ranks[s] + 1 for s in sources[item]), default=base)
    for item in reversed(range(first, count - last)):
        if targets[item] and len(targets[item]) >= len(sources[item]):
            ranks[item] = min(ranks[t] for t in targets[item]) - 1
    bottom = max((ranks[item] + 1 for item in range(count - last)), default=base)
    for item in range(count - last, count):
        ranks[item] = bottom
    return ranks


Links = list[list[tuple[Slot, Slot, int]]]


def _with_bends(count: int, edges: Sequence[Edge], ranks: list[int]) -> tuple[list[list[Slot]], Links]:
    """Return the layers with a bend wherever an edge passes one, and the links between neighbouring layers."""
    layers: list[list[Slot]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for item in range(count):
        layers[ranks[item]].append(Slot(item))
    links: list[dict[tuple[Slot, Slot, int], None]] = [{} for _ in layers]
    bends: set[tuple[int, Slot]] = set()
    for source, target, value in edges:
        upper, bend = Slot(source), Slot(None, source, value)
        for rank in range(ranks[source] + 1, ranks[target]):
            if (rank, bend) not in bends:
                bends.add((rank, bend))
                layers[rank].append(bend)
            links[rank - 1][upper, bend, value] = None
            upper = bend
        links[ranks[target] - 1][upper, Slot(target), value] = None
    return layers, [list(pairs) for pairs in links]


def _reduce_crossings(layers: list[list[Slot]], links: Links) -> None:
    """Sort layers by the mean position of their neighbours, down and up in turn, and keep the best order seen."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, links)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for rank in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            _sort_by_neighbours(layers, links, rank, down)
        crossings = _crossings(layers, links)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _sort_by_neighbours(layers: list[list[Slot]], links: Links, rank: int, down: bool) -> None:
    fixed = {slot: position for position, slot in enumerate(layers[rank - 1 if down else rank + 1])}
    neighbours = defaultdict[Slot, list[int]](list)
    for upper, lower, _ in links[rank - 1 if down else rank]:
        mine, other = (lower, upper) if down else (upper, lower)
        neighbours[mine].append(fixed[other])
    wanted = {
        slot: sum(neighbours[slot]) / len(neighbours[slot]) if neighbours[slot] else float(position)
        for position, slot in enumerate(layers[rank])
    }
    layers[rank].sort(key=lambda slot: wanted[slot])


def _crossings(layers: list[list[Slot]], links: Links) -> int:
    return sum(
        _crossings_between(
            {slot: position for position, slot in enumerate(layers[rank])},
            {slot: position for position, slot in enumerate(layers[rank + 1])},
            pairs,
        )
        for rank, pairs in enumerate(links)
        if pairs
    )


def _crossings_between(
    above: Mapping[Slot, int], below: Mapping[Slot, int], pairs: Sequence[tuple[Slot, Slot, int]]
) -> int:
    ends = sorted((above[upper], below[lower]) for upper, lower, _ in pairs)
    seen: list[int] = []
    crossings = 0
    for _, end in ends:
        crossings += len(seen) - bisect_left(seen, end + 1)
        insort(seen, end)
    return crossings
