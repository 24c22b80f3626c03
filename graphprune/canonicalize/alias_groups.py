"""Which values of a graph share memory: every value that is a view of another belongs to the group of its root.

Views by schema (``select``, ``view``, ``split``) always share memory. Some ops do so only sometimes (``reshape``,
``contiguous``): their results are roots of their own that are *linked* to the group they may belong to.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx

from graphprune.graph import op_name

_SOMETIMES = {"reshape", "reshape_as", "flatten", "ravel", "contiguous", "to", "type_as", "float", "double", "half"}


@dataclass
class AliasGroup:
    """A root and its views.

    Attributes:
        root: the value that owns the memory.
        parent: each view (and each in-place op's result, the same memory again) -> the value it looks at.
        mutations: in-place ops on members, with the member each one changes, in graph order.
    """

    root: fx.Node
    parent: dict[fx.Node, fx.Node] = field(default_factory=dict)
    mutations: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)

    def members(self) -> Iterator[fx.Node]:
        """Yield the root and all views."""
        yield self.root
        yield from self.parent


def alias_groups(graph: fx.Graph) -> list[list[AliasGroup]]:
    """Return all groups, those that may share memory with each other together in one list."""
    group_of: dict[fx.Node, AliasGroup] = {}
    components: dict[int, list[AliasGroup]] = {}
    for node in graph.nodes:
        for target in written_operands(node):
            group_of[target].mutations.append((node, target))
        base = _base(node)
        if base is not None and op_name(node) not in _SOMETIMES:
            group_of[base].parent[node] = base
            group_of[node] = group_of[base]
            continue
        group = group_of[node] = AliasGroup(node)
        component = components[id(group_of[base])] if base is not None else []
        component.append(group)
        components[id(group)] = component
    return list({id(component): component for component in components.values()}.values())


def written_operands(node: fx.Node) -> list[fx.Node]:
    """Return the operands that ``node`` writes into, by its schema."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return []
    written = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            fx.map_arg(value, written.append)
    return written


def visible_writes(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Return each in-place op on memory that outlives a call, with the input, parameter or buffer it writes to."""
    return [
        (write, group.root)
        for component in alias_groups(graph)
        for group in component
        for write, _ in group.mutations
        if group.root.op in ("placeholder", "get_attr")
    ]


def _base(node: fx.Node) -> fx.Node | None:
    """Return the operand that ``node`` is a view of (or writes into and returns), or None."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.target is operator.getitem:
        return node.args[0] if _base(node.args[0]) is not None else None
    schema = getattr(node.target, "_schema", None)
    aliases = schema is not None and any(result.alias_info is not None for result in schema.returns)
    return node.args[0] if aliases else None


def seen_across(component: list[AliasGroup], order: dict[fx.Node, int]) -> bool:
    """Say whether a write to one group of the component may be seen by a later read of another that existed before."""
    return any(
        order[user] > order[write]
        for group in component
        for write, _ in group.mutations
        for other in component
        if other is not group and order[other.root] < order[write]
        for member in other.members()
        for user in member.users
    )
