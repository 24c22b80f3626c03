"""What a shrunk graph tells about sizes, module by module: which size became which.

Each node knows the modules whose code made it, and its axes know how they shrink. So for every module there are facts
``old size -> new size``, weighted by how closely they belong to the module's own code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from graphprune.analysis import Analysis
from graphprune.axes import Axis, KeepMasks, Kind, pin_of, resolve, size_of
from graphprune.graph import bind_arguments, module_paths
from graphprune.rules.context import flatten

Change = tuple[int, int]

_VALUE, _OWN_PARAMETER, _LITERAL = 4.0, 2.0, 8.0
_PINNED = 0.05  # batch sizes, positions: attributes seldom spell these, and small numbers coincide
_OUTWARD = 0.25  # for each step from a module to the one that contains it
_MOST_PARTS = 8


@dataclass
class Evidence:
    """Facts about sizes.

    Attributes:
        changes: module path -> (old size, new size) -> weight.
        literals: module path -> name of an op's argument -> (old value, new value) of that argument, in the ops
            that the module's own code calls.
    """

    changes: dict[str, dict[Change, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    literals: dict[str, dict[str, set[Change]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))


def gather_evidence(model: nn.Module, analysis: Analysis, masks: KeepMasks, small: fx.GraphModule) -> Evidence:
    """Collect all facts from the graph of ``analysis`` and ``small``, the same graph shrunk by ``masks``.

    A module of ``model`` that is in several places has the facts of all of them under its first path.
    """
    first: dict[nn.Module, str] = {}
    place = {path: first.setdefault(module, path) for path, module in model.named_modules(remove_duplicate=False)}
    evidence = Evidence()
    known: dict[int, set[tuple[Change, float]]] = {}

    def changes(axes: Sequence[Axis]) -> set[tuple[Change, float]]:
        for axis in map(resolve, axes):
            if axis.identity not in known:
                known[axis.identity] = set(_change_of(axis, masks))
        return set().union(*(known[resolve(axis).identity] for axis in axes))

    for path, axes in analysis.typing.attributes.items():
        owners = [place.get(owner, owner) for owner in _outwards(path)[1:]]
        _note(evidence, owners, changes(axes), _OWN_PARAMETER)
    new_nodes = {node.name: node for node in small.graph.nodes}
    for node in analysis.gm.graph.nodes:
        paths = [place.get(path, path) for path in module_paths(node)]
        if node in analysis.typing.types and node.op == "call_function":
            operands = [n for n in node.all_input_nodes if n in analysis.typing.types]
            axes = [a for n in (node, *operands) for a in flatten(analysis.typing.types[n])]
            _note(evidence, paths, changes(axes), _VALUE)
        if node.name in new_nodes and paths:
            _note_literals(evidence, paths, node, new_nodes[node.name])
    return evidence


def _outwards(path: str) -> list[str]:
    """Return ``a.b.c``, ``a.b``, ``a`` and the root."""
    names = path.split(".")
    return [".".join(names[:i]) for i in range(len(names), -1, -1)]


def _note(evidence: Evidence, paths: Sequence[str], changes: set[tuple[Change, float]], weight: float) -> None:
    for path in paths:
        for change, factor in changes:
            evidence.changes[path][change] += weight * factor
        weight *= _OUTWARD


def _note_literals(evidence: Evidence, paths: Sequence[str], old: fx.Node, new: fx.Node) -> None:
    before, after = bind_arguments(old), bind_arguments(new)
    for name, value in before.items():
        for change in _paired_integers(value, after.get(name)):
            evidence.literals[paths[0]][name].add(change)
            if change[0] != change[1]:
                _note(evidence, paths, {(change, 1.0)}, _LITERAL)


def _paired_integers(old: Any, new: Any) -> Iterator[Change]:
    if _is_integer(old) and type(new) is int:
        yield old, new
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for a, b in zip(old, new, strict=True):
            yield from _paired_integers(a, b)


def _is_integer(value: Any) -> bool:
    return type(value) is int and value > 1


def _change_of(axis: Axis, masks: KeepMasks) -> Iterator[tuple[Change, float]]:
    """Yield the change of an axis and of every run of neighbouring parts within it."""
    axis = resolve(axis)
    old, new = size_of(axis), masks.count(axis)
    if _is_integer(old) and isinstance(new, int):
        yield (int(old), new), _PINNED if pin_of(axis) is not None else 1.0
    if axis.kind is Kind.LEAF or len(axis.parts) > _MOST_PARTS:
        return
    for part in axis.parts:
        yield from _change_of(part, masks)
    for start in range(len(axis.parts)):
        for stop in range(start + 2, len(axis.parts) + (start > 0)):
            yield from _run_of_parts(axis.parts[start:stop], axis.kind, masks)


def _run_of_parts(parts: Sequence[Axis], kind: Kind, masks: KeepMasks) -> Iterator[tuple[Change, float]]:
    old, new = (1, 1) if kind is Kind.PRODUCT else (0, 0)
    for part in parts:
        before, after = size_of(part), masks.count(part)
        if not (isinstance(before, int) and isinstance(after, int)):
            return
        old, new = (old * before, new * after) if kind is Kind.PRODUCT else (old + before, new + after)
    if old > 1:
        yield (old, new), 1.0
