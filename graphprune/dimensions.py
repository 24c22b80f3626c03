"""Dimensions: the independent things that can be pruned, each a class of equal, unpinned axis leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from graphprune.axes import Axis, factors, known_size, leaves, pin_of, resolve, terms
from graphprune.inference import Typing

CHANNEL, HEAD, QUERY_HEAD, HEAD_DIM, FACTOR = "channel", "head", "query_head", "head_dim", "factor"
KINDS = (CHANNEL, HEAD, QUERY_HEAD, HEAD_DIM, FACTOR)


@dataclass(frozen=True)
class Dimension:
    """One independent, prunable dimension.

    Attributes:
        name: stable name: the first axis that mentions it of a parameter with several axes (or of any, if there is no
            such parameter), ``conv1.weight:0``, with ``.k`` added for the k-th leaf of a composite axis.
        size: number of units.
        kind: "channel", "head", "query_head", "head_dim", or "factor" (a small co-factor of another dimension, such
            as the channels within a group).
        members: (parameter path, axis index) pairs whose axis contains the dimension, in graph order.
        statistics: names of nodes that normalise over it.
        leaf: identity of the leaf in the typing it came from.
    """

    name: str
    size: int
    kind: str
    members: tuple[tuple[str, int], ...]
    statistics: tuple[str, ...]
    leaf: int


def find_dimensions(typing: Typing) -> list[Dimension]:
    """Return the dimensions of a typed graph: unpinned leaves of known size behind at least one parameter axis."""
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    matrices: set[int] = set()
    for path, d, axis in parameter_axes(typing):
        is_matrix = len(typing.attributes[path]) > 1
        for k, leaf in enumerate(leaves(axis)):
            if leaf.pin is not None or not isinstance(leaf.size, int):
                continue
            members[leaf.identity].append((path, d))
            sizes[leaf.identity] = leaf.size
            if leaf.identity not in names or (is_matrix and leaf.identity not in matrices):
                names[leaf.identity] = f"{path}:{d}" + (f".{k}" if resolve(axis) is not leaf else "")
            if is_matrix:
                matrices.add(leaf.identity)
    kinds = _kinds(typing)
    statistics: dict[int, list[str]] = defaultdict(list)
    for node, axis in typing.statistics:
        for leaf in leaves(axis):
            statistics[leaf.identity].append(node)
    return [
        Dimension(
            names[identity],
            sizes[identity],
            kinds.get(identity, CHANNEL),
            tuple(sites),
            tuple(dict.fromkeys(statistics[identity])),
            identity,
        )
        for identity, sites in members.items()
    ]


def parameter_axes(typing: Typing) -> Iterable[tuple[str, int, Axis]]:
    """Yield (path, axis index, axis) for every axis of every ``nn.Parameter`` that the graph reads."""
    for path, axes in typing.attributes.items():
        if path in typing.parameters:
            for d, axis in enumerate(axes):
                yield path, d, axis


def _kinds(typing: Typing) -> dict[int, str]:
    """Classify leaves: by the role a rule saw them in, then by the company they keep in products."""
    prunable = {leaf.identity for _, _, axis in parameter_axes(typing) for leaf in leaves(axis) if leaf.pin is None}
    kinds: dict[int, str] = {}
    for role, axis in typing.roles:
        if role == HEAD:
            _classify_heads([leaf.identity for leaf in leaves(axis) if leaf.identity in prunable], kinds)
    for role, axis in typing.roles:
        for leaf in leaves(axis):
            kinds.setdefault(leaf.identity, role)
    for _, _, axis in parameter_axes(typing):
        for term in terms(axis):
            _classify_factors([f for f in factors(term) if pin_of(f) is None], kinds)
    return kinds


def _classify_heads(identities: list[int], kinds: dict[int, str]) -> None:
    """The outermost prunable factor of a batch axis counts heads; those inside it, queries of one key-value head."""
    for position, identity in enumerate(identities):
        kinds.setdefault(identity, HEAD if position == 0 else QUERY_HEAD)


def _classify_factors(free: list[Axis], kinds: dict[int, str]) -> None:
    """Beside a head, the rest of a product is head width; beside a larger factor, a smaller one is a mere factor."""
    if len(free) < 2:
        return
    heads = (HEAD, QUERY_HEAD)
    has_head = any(kinds.get(leaf.identity) in heads for factor in free for leaf in leaves(factor))
    largest = max(free, key=known_size)
    for factor in free:
        for leaf in leaves(factor):
            if has_head:
                kinds.setdefault(leaf.identity, HEAD_DIM)
            elif factor is not largest:
                kinds.setdefault(leaf.identity, FACTOR)
