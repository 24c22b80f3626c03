"""Titles: names of dimensions for people, such as "layer2 residual stream (512)" or "mlp hidden neurons (768)".

A title says where a dimension lives, what it is, and how many units it has. Where: the longest module path that all
layers using it share, if no other dimension of its sort lives inside; else the path that the layers creating it share.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphprune.units.kinds import CHANNEL, EMBEDDING, EXPERT, FACTOR, HEAD, HEAD_DIM, KV_GROUP, NEURON, QUERY_HEAD
from graphprune.units.name_patterns import common_module, common_path, names_of
from graphprune.units.usage import LeafUsage

_NOUNS = {
    HEAD: "heads",
    KV_GROUP: "key-value groups",
    QUERY_HEAD: "query heads per group",
    EXPERT: "experts",
    FACTOR: "channels per group",
}
_PLAIN = {CHANNEL: ("inner channels", "channels"), NEURON: ("hidden neurons", "neurons")}


@dataclass(frozen=True)
class Untitled:
    """What a title is made from.

    Attributes:
        name: the dimension's stable name.
        size: number of units.
        kind: the dimension's kind.
        members: parameter paths that mention it.
        usage: how the graph uses it.
        is_block: it stands outside another dimension in a product: its units are groups of that one's.
        is_within: it stands inside another dimension in a product.
        repeats: one parameter axis has it more than once: rotary pairs, the halves of a gated unit.
    """

    name: str
    size: int
    kind: str
    members: tuple[str, ...]
    usage: LeafUsage
    is_block: bool
    is_within: bool
    repeats: bool


def find_titles(untitled: Sequence[Untitled]) -> list[str]:
    """Return a title for each dimension, in order; no two are equal."""
    places = [common_module(dimension.members) for dimension in untitled]
    modules = {path.rpartition(".")[0] for dimension in untitled for path in dimension.members}
    crowded = _crowded(untitled, places, modules)
    parts = [_place_and_noun(d, place, full) for d, place, full in zip(untitled, places, crowded, strict=True)]
    return _distinct(untitled, parts)


def _place_and_noun(dimension: Untitled, place: str, crowded: bool) -> tuple[str, str]:
    usage = dimension.usage
    home = common_module(usage.creators or dimension.members)
    if dimension.kind == EMBEDDING and usage.is_table_width:
        return home, "embedding width"
    if dimension.kind in _PLAIN and dimension.is_block:
        return home if crowded else place, "groups"
    if dimension.kind in (*_PLAIN, EMBEDDING):
        if usage.is_stream:
            joined = common_path(usage.joins)
            return max(home, joined, key=len), "residual stream"
        inner, plain = _PLAIN.get(dimension.kind, _PLAIN[NEURON])
        if dimension.is_within:
            inner = plain = f"{plain} per group"
        if not usage.joins and usage.creators:
            home = common_module([next(iter(usage.creators))])  # the others gate what the first one makes
        return (home, plain) if crowded else (place, inner)
    return home if crowded else place, _noun(dimension)


def _noun(dimension: Untitled) -> str:
    if dimension.kind == HEAD_DIM:
        return _noun_of_head_width(dimension)
    if dimension.kind == FACTOR and dimension.is_block:
        return "groups"
    return _NOUNS.get(dimension.kind, f"{dimension.kind.replace('_', ' ')}s")


def _noun_of_head_width(dimension: Untitled) -> str:
    """Queries and keys have one head width, values another, unless one projection makes all three."""
    usage = dimension.usage
    if usage.is_compared and not usage.is_averaged:
        return "rotary pairs" if dimension.repeats else "query-key head width"
    return "value head width" if usage.is_averaged and not usage.is_compared else "head width"


def _crowded(untitled: Sequence[Untitled], places: Sequence[str], modules: Iterable[str]) -> list[bool]:
    """Say for each dimension whether its place fits others of its sort as well, or is much wider than what it touches.

    Args:
        untitled: the dimensions.
        places: the longest path shared by all members of each.
        modules: paths of all modules with parameters.
    """
    sorts = ["plain" if dimension.kind in _PLAIN else _noun(dimension) for dimension in untitled]
    here = Counter(zip(sorts, places, strict=True))
    inside = Counter((sort, outer) for sort, place in zip(sorts, places, strict=True) for outer in names_of(place))
    children: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules:
        for outer, child in itertools.pairwise(reversed(names_of(module))):
            children[outer].add(child)
    result = []
    for dimension, sort, place in zip(untitled, sorts, places, strict=True):
        depth = len(place.split(".")) + 1
        touched = {".".join(path.split(".")[:depth]) for path in dimension.members}
        wide = inside[sort, place] > 1 and 2 * len(touched) <= len(children[place])
        result.append(not place or here[sort, place] > 1 or wide)
    return result


def _distinct(untitled: Sequence[Untitled], parts: list[tuple[str, str]]) -> list[str]:
    """Spell titles; where they would be equal, add the layers that create each, a number, or the stable name."""
    plain, detailed = [], []
    for dimension, (place, noun) in zip(untitled, parts, strict=True):
        layers = ", ".join(_layers_below(place, dimension.usage.creators or dimension.members))
        detailed.append(f"{place} {noun} of {layers}".strip() if layers else f"{place} {noun}".strip())
        says_little = not place and noun in ("channels", "neurons")
        plain.append(detailed[-1] if says_little else f"{place} {noun}".strip())
    numbered = [f"{title}{_part(d.name)}" for title, d in zip(plain, untitled, strict=True)]
    both = [f"{title}{_part(d.name)}" for title, d in zip(detailed, untitled, strict=True)]
    named = [f"{title} [{d.name}]" for title, d in zip(plain, untitled, strict=True)]
    chosen: dict[int, str] = {}
    for spelling in (plain, numbered, detailed, both, named):
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for i, title in enumerate(spelling):
            if i not in chosen:
                groups[f"{title} ({untitled[i].size})"].append(i)
        taken = set(chosen.values())
        chosen |= {group[0]: title for title, group in groups.items() if len(group) == 1 and title not in taken}
    return [chosen[i] for i in range(len(untitled))]


def _part(name: str) -> str:
    """Return ", part 2" for the second leaf of an axis, which the dimension's stable name tells."""
    leaf = name.rpartition(":")[2].partition(".")[2]
    return f", part {int(leaf) + 1}" if leaf else ""


def _layers_below(place: str, parameters: Iterable[str], limit: int = 3) -> list[str]:
    """Return the modules of ``parameters`` relative to ``place``, at most ``limit`` of them."""
    depth = len(place.split(".")) if place else 0
    names = dict.fromkeys(".".join(path.split(".")[depth:-1]) for path in parameters)
    found = [name for name in names if name]
    return found if len(found) <= limit else [*found[: limit - 1], "..."]
