"""Finds dimensions that may be chosen unevenly: for each element of another, outer, dimension in its own way.

Each attention head may keep head dimensions of its own, each group of a convolution channels of its own, as long as
all keep equally many, provided that

- every tensor with the inner dimension also has the outer one, before it where both are factors of one axis;
- no op brings inner elements of different outer elements together.

The second is proved op by op. A rule types each op such that any choice of kept elements commutes with it; so where the
outer axis passes from operands to result, each outer element is computed by itself and may have a choice of its own.
What is left to check is that all tensors of the op mean the *same* outer axis: the rule is run again on copies of the
operands' types with every occurrence of a leaf renamed, and whatever it then unifies is the same axis. Ops that compute
a statistic over the outer axis alone compare its elements, and are the exception.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import fx

from graphprune.axes import (
    Axis,
    AxisSolver,
    Kind,
    Presence,
    direct_sum,
    factors,
    leaves,
    pin_of,
    presence,
    product,
    resolve,
    terms,
)
from graphprune.graph import bind_arguments
from graphprune.inference import Typing
from graphprune.rules import rule_for
from graphprune.rules.context import CannotInfer, Inference, Typed, flatten, tensors_of
from graphprune.units.dimensions import Dimension


@dataclass(frozen=True)
class Unevenness:
    """Whether one dimension may be chosen unevenly.

    Attributes:
        outer: name of the dimension whose elements choose each for themselves; None if there is none.
        reason: why there is none, else "".
    """

    outer: str | None
    reason: str = ""


NUMBERED = "its elements are taken by number: at constant positions, or by an op that chooses the best"


def numbered_leaves(typing: Typing) -> set[int]:
    """Return the leaves whose elements ops take by number; rules cannot be rerun on copies of such axes."""
    found = {leaf.identity for _, axis, _ in typing.minimums for leaf in leaves(axis)}
    pending = [axis for typed in typing.types.values() for axis in flatten(typed)]
    seen: set[int] = set()
    while pending:
        axis = resolve(pending.pop())
        if axis.identity in seen:
            continue
        seen.add(axis.identity)
        if axis.kind is Kind.GATHERED:
            found |= {leaf.identity for leaf in leaves(axis)}
        pending += axis.parts
    return found


class _Unsafe(Exception):
    """Says why a pair of dimensions is not a fibre."""


Tensor = list[Axis]


def find_fibres(typing: Typing, dimensions: Sequence[Dimension]) -> dict[str, Unevenness]:
    """Return, for each dimension by name, whether its choice may differ between the elements of another one."""
    search = _Search(typing, {dimension.leaf: dimension for dimension in dimensions})
    return {dimension.name: search.unevenness(dimension) for dimension in dimensions}


@dataclass
class _Search:
    typing: Typing
    dimensions: dict[int, Dimension]
    holders: dict[int, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    companions: dict[int, set[int]] = field(default_factory=dict)
    loners: dict[int, str] = field(default_factory=dict)
    readers: dict[int, list[fx.Node]] = field(default_factory=lambda: defaultdict(list))
    numbered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Note for each dimension which tensors have it, which dimensions all of those share, and which ops read it."""
        self.numbered = numbered_leaves(self.typing)
        for path, axes in self.typing.attributes.items():
            self._note(path, axes)
        for node, typed in self.typing.types.items():
            for i, axes in enumerate(tensors_of(typed)):
                self._note(node.name if i == 0 else f"{node.name}[{i}]", axes)
            operands = [
                axis for operand in node.all_input_nodes for axis in flatten(self.typing.types.get(operand, []))
            ]
            for leaf in self._prunable(operands):
                self.readers[leaf].append(node)

    def _note(self, name: str, axes: Tensor) -> None:
        present = self._prunable(axes)
        for leaf in present:
            self.holders[leaf][name] = axes
            shared = self.companions.setdefault(leaf, set(self.dimensions) - {leaf})
            if shared:
                shared &= present
                if not shared:
                    self.loners[leaf] = name

    def _prunable(self, axes: Sequence[Axis]) -> set[int]:
        return {leaf.identity for axis in axes for leaf in leaves(axis)} & self.dimensions.keys()

    def unevenness(self, dimension: Dimension) -> Unevenness:
        """Try every dimension that goes with this one everywhere, the largest first."""
        if dimension.size < 2:
            return Unevenness(None, "it has one element only")
        inner = dimension.leaf
        if inner in self.numbered:
            return Unevenness(None, NUMBERED)
        if inner in self.loners:
            return Unevenness(None, f"{self.loners[inner]} has no outer axis for it")
        reason = "no outer axis goes with it everywhere"
        for outer in sorted(
            self.companions[inner] - self.numbered, key=lambda leaf: (-self.dimensions[leaf].size, leaf)
        ):
            try:
                self._check_structure(inner, outer)
                for node in self.readers[inner]:
                    _check_op(self.typing, node, inner, outer)
            except _Unsafe as unsafe:
                reason = f"not by {self.dimensions[outer].name}: {unsafe}"
            else:
                return Unevenness(self.dimensions[outer].name)
        return Unevenness(None, reason)

    def _check_structure(self, inner: int, outer: int) -> None:
        is_inner, is_outer = {inner}, {outer}
        for name, axes in self.holders[inner].items():
            try:
                list(_pairs(axes, is_inner, is_outer))
            except _Unsafe as unsafe:
                raise _Unsafe(f"in {name} {unsafe}") from None


# ---------------------------------------------------------------------------------------------------- one tensor


def _pairs(axes: Tensor, inner: set[int], outer: set[int]) -> Iterator[tuple[int, int]]:
    """Yield (inner leaf, outer leaf) for every place of an inner leaf in a tensor: which outer leaf it belongs to.

    Raises:
        _Unsafe: if that is not clear.
    """
    for d, axis in enumerate(axes):
        elsewhere: list[int] | None = None
        for leaf, owners in list(_places(axis, [], inner, outer)):
            if not owners and elsewhere is None:
                elsewhere = _owners_elsewhere(axes, d, outer)
            yield from ((leaf, owner) for owner in owners or elsewhere or [])


def _places(axis: Axis, owners: list[int], inner: set[int], outer: set[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield each place of an inner leaf in ``axis`` with the outer leaves that precede it in its products."""
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        if axis.identity in inner:
            yield axis.identity, owners
        return
    if axis.kind is Kind.SUM:
        for term in terms(axis):
            yield from _places(term, owners, inner, outer)
        return
    if axis.kind is not Kind.PRODUCT:
        if any(leaf.identity in inner | outer for leaf in leaves(axis)):
            raise _Unsafe("it is rearranged")
        return
    seen = False
    for factor in factors(axis):
        places = list(_places(factor, owners, inner, outer))
        if places and seen:
            raise _Unsafe("it stands twice in one product")
        seen = seen or bool(places)
        yield from places
        own = [leaf.identity for leaf in leaves(factor) if leaf.identity in outer]
        if not own:
            continue
        if seen:
            raise _Unsafe("it comes before the outer axis")
        if owners or not _covered(factor, own):
            raise _Unsafe("the outer axis is not the same at all positions")
        owners = own


def _owners_elsewhere(axes: Tensor, d: int, outer: set[int]) -> list[int]:
    holders = [axis for e, axis in enumerate(axes) if e != d and any(leaf.identity in outer for leaf in leaves(axis))]
    if len(holders) != 1:
        raise _Unsafe("the outer axis is missing" if not holders else "several axes have the outer axis")
    own = [leaf.identity for leaf in leaves(holders[0]) if leaf.identity in outer]
    if not _covered(holders[0], own):
        raise _Unsafe("the outer axis is not the same at all positions")
    return own


def _covered(axis: Axis, outer: list[int]) -> bool:
    """Say whether each position of ``axis`` belongs to an element of exactly one of the ``outer`` leaves."""
    axis = resolve(axis)
    if len(outer) == 1:
        return presence(axis, outer[0]) is Presence.EVERYWHERE
    if axis.kind is Kind.SUM:
        return all(
            _covered(term, [leaf.identity for leaf in leaves(term) if leaf.identity in outer]) for term in terms(axis)
        )
    holding = [f for f in factors(axis) if any(leaf.identity in outer for leaf in leaves(f))]
    return axis.kind is Kind.PRODUCT and len(holding) == 1 and _covered(holding[0], outer)


# ---------------------------------------------------------------------------------------------------- one op


def _check_op(typing: Typing, node: fx.Node, inner: int, outer: int) -> None:
    """Raise _Unsafe unless ``node`` treats each element of the outer leaf by itself, or all of them as one axis."""
    rule = rule_for(node)
    if node.op != "call_function" or rule is None:
        raise _Unsafe(f"{node.name} reads it by position")
    local = Inference()
    renaming = _Renaming(local.solver)
    apart = _apart(typing, node, renaming, local)
    local.solver.node = node.name
    try:
        result = rule.infer(local, apart, bind_arguments(apart)) if node in typing.types else []
    except CannotInfer as reason:
        raise _Unsafe(f"{node.name}: {reason}") from None
    inners, outers = renaming.now(inner, node), renaming.now(outer, node)
    owner_of: dict[int, int] = {}
    tensors = [axes for typed in (*local.types.values(), result) for axes in tensors_of(typed)]
    for axes in tensors:
        for leaf, owner in _pairs(axes, inners, outers):
            if owner_of.setdefault(leaf, owner) != owner:
                raise _Unsafe(f"{node.name} combines different elements of the outer axis")
    _check_statistics(node, local, owner_of)


def _apart(typing: Typing, node: fx.Node, renaming: _Renaming, local: Inference) -> fx.Node:
    """Return a copy of ``node`` in which every argument is a node of its own, even where one value is passed twice."""
    graph = fx.Graph()

    def stand_in(operand: fx.Node) -> fx.Node:
        op = "get_attr" if operand.op == "get_attr" else "placeholder"
        copy = graph.create_node(op, operand.target if op == "get_attr" else operand.name, name=operand.name)
        copy.meta = operand.meta
        if operand in typing.types:
            local.types[copy] = renaming.typed(typing.types[operand])
        return copy

    args, kwargs = fx.map_arg(node.args, stand_in), fx.map_arg(node.kwargs, stand_in)
    copy = graph.create_node(node.op, node.target, args, kwargs, name=node.name)
    copy.meta = node.meta
    return copy


def _check_statistics(node: fx.Node, local: Inference, owner_of: dict[int, int]) -> None:
    over = {leaf.identity for _, axis in local.statistics for leaf in leaves(axis)}
    for leaf, owner in owner_of.items():
        if owner in over and leaf not in over:
            raise _Unsafe(f"{node.name} computes a statistic over the outer axis")


@dataclass
class _Renaming:
    """Copies types so that every occurrence of a leaf becomes a leaf of its own."""

    solver: AxisSolver
    copies: dict[int, list[Axis]] = field(default_factory=lambda: defaultdict(list))

    def typed(self, typed: Typed) -> Typed:
        copies = [[self._copy(axis) for axis in axes] for axes in tensors_of(typed)]
        return copies if typed and isinstance(typed[0], list) else copies[0]

    def _copy(self, axis: Axis) -> Axis:
        axis = resolve(axis)
        if axis.kind is Kind.LEAF:
            copy = Axis(axis.size, pin=axis.pin)
            self.copies[axis.identity].append(copy)
            return copy
        parts = [self._copy(part) for part in axis.parts]
        if axis.kind is Kind.GATHERED:
            assert axis.positions is not None
            return self.solver.gather(parts[0], axis.positions)
        return product(parts) if axis.kind is Kind.PRODUCT else direct_sum(parts)

    def now(self, leaf: int, node: fx.Node) -> set[int]:
        """Return what the copies of ``leaf`` have become.

        Raises:
            _Unsafe: if one of them was pinned or taken apart.
        """
        found = [resolve(copy) for copy in self.copies[leaf]]
        if any(axis.kind is not Kind.LEAF or pin_of(axis) is not None for axis in found):
            raise _Unsafe(f"{node.name} looks at its positions")
        return {axis.identity for axis in found}
