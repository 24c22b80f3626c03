"""Dimensions: the independent things that can be pruned, each a class of equal, unpinned axis leaves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from graphprune.axes import Axis, Kind, factors, leaves, pin_of, resolve, terms
from graphprune.inference import Typing
from graphprune.units.kinds import find_kinds
from graphprune.units.name_patterns import matches
from graphprune.units.titles import Untitled, find_titles
from graphprune.units.usage import leaf_usage


@dataclass(frozen=True)
class Dimension:
    """One independent, prunable dimension.

    Attributes:
        name: stable name: the first axis that mentions it of a parameter with several axes (or of any, if there is no
            such parameter), ``conv1.weight:0``, with ``.k`` added for the k-th leaf of a composite axis.
        size: number of units.
        title: name for people, unique within the graph: "layer2 residual stream (512)".
        kind: "channel" (of convolutions: filters), "neuron" (of linears), "embedding" (width of a table or of a
            residual stream that no convolution reads), "head", "kv_group" (a key-value head with its query heads),
            "query_head" (within a group), "head_dim", "expert" (of a mixture of experts), or "factor" (a small
            co-factor of another dimension, such as the channels within a group).
        members: (parameter path, axis index) pairs whose axis contains the dimension, in graph order.
        statistics: names of nodes that normalise over it.
        leaf: identity of the leaf in the typing it came from.
        least: how many units must stay: more than one if an op chooses the best k of them.
    """

    name: str
    size: int
    title: str
    kind: str
    members: tuple[tuple[str, int], ...]
    statistics: tuple[str, ...]
    leaf: int
    least: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Its names: the stable one, and the title with and without the size."""
        return (self.name, self.title, self.title.rpartition(" (")[0])

    def matches(self, patterns: Iterable[str]) -> bool:
        """Say whether a pattern (``fnmatch``) fits one of its names, a parameter it touches or a module around that."""
        patterns = tuple(patterns)
        if not patterns:
            return False
        if any(name == pattern or fnmatchcase(name, pattern) for name in self.names for pattern in patterns):
            return True
        return any(matches(path, patterns) for path, _ in self.members)


def find_dimensions(typing: Typing) -> list[Dimension]:
    """Return the dimensions of a typed graph: unpinned leaves of known size behind at least one parameter axis."""
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    matrices: set[int] = set()
    parts: dict[int, list[Axis]] = {}
    for path, d, axis in parameter_axes(typing):
        is_matrix = len(typing.attributes[path]) > 1
        axis = resolve(axis)
        if axis.identity not in parts:
            parts[axis.identity] = leaves(axis)
        for k, leaf in enumerate(parts[axis.identity]):
            if leaf.pin is not None or not isinstance(leaf.size, int):
                continue
            members[leaf.identity].append((path, d))
            sizes[leaf.identity] = leaf.size
            if leaf.identity not in names or (is_matrix and leaf.identity not in matrices):
                names[leaf.identity] = f"{path}:{d}" + (f".{k}" if axis is not leaf else "")
            if is_matrix:
                matrices.add(leaf.identity)
    usage = leaf_usage(typing, members)
    composite = _composite_axes(typing)
    kinds = find_kinds(typing, usage, composite)
    (outer, inner), repeated = _outer_and_inner_factors(composite), _repeated(composite)
    titles = find_titles([
        Untitled(
            name=names[identity],
            size=sizes[identity],
            kind=kinds[identity],
            members=tuple(path for path, _ in sites),
            usage=usage[identity],
            is_block=identity in outer,
            is_within=identity in inner,
            repeats=identity in repeated,
        )
        for identity, sites in members.items()
    ])  # fmt: skip
    statistics: dict[int, list[str]] = defaultdict(list)
    for node, axis in typing.statistics:
        for leaf in leaves(axis):
            statistics[leaf.identity].append(node)
    least = {resolve(axis).identity: count for _, axis, count in sorted(typing.minimums, key=lambda m: m[2])}
    return [
        Dimension(
            name=names[identity],
            size=sizes[identity],
            title=title,
            kind=kinds[identity],
            members=tuple(sites),
            statistics=tuple(dict.fromkeys(statistics[identity])),
            leaf=identity,
            least=least.get(identity, 1),
        )
        for (identity, sites), title in zip(members.items(), titles, strict=True)
    ]


def parameter_axes(typing: Typing) -> Iterable[tuple[str, int, Axis]]:
    """Yield (path, axis index, axis) for every axis of every ``nn.Parameter`` that the graph reads."""
    for path, axes in typing.attributes.items():
        if path in typing.parameters:
            for d, axis in enumerate(axes):
                yield path, d, axis


def _composite_axes(typing: Typing) -> list[Axis]:
    """Return the distinct axes of parameters that are more than a leaf, in graph order."""
    resolved = (resolve(axis) for _, _, axis in parameter_axes(typing))
    return list({axis.identity: axis for axis in resolved if axis.kind is not Kind.LEAF}.values())


def _outer_and_inner_factors(axes: Iterable[Axis]) -> tuple[set[int], set[int]]:
    """Return the leaves that stand outside, and those that stand inside, another one in an axis that is a product."""
    outer: set[int] = set()
    inner: set[int] = set()
    for axis in axes:
        free = [factor for factor in factors(axis) if pin_of(factor) is None]
        if len(free) > 1:
            outer |= {leaf.identity for leaf in leaves(free[0])}
            inner |= {leaf.identity for factor in free[1:] for leaf in leaves(factor)}
    return outer, inner - outer


def _repeated(axes: Iterable[Axis]) -> set[int]:
    """Return the leaves that some axis has more than once, as both halves of a sum."""
    found: set[int] = set()
    for axis in axes:
        for part in [axis, *factors(axis)]:
            counts = Counter(resolve(term).identity for term in terms(part))
            found |= {identity for identity, count in counts.items() if count > 1}
    return found
