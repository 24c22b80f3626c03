"""Residual branches: finds every ``x + f(x)`` in a graph, whatever scales, gates or normalises ``f(x)``.

A *section* is a part of the graph that can be left out: its exit node is replaced by its entry node, and what only the
exit needed goes. A residual branch is the section from ``x`` to ``x + f(x)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import fx

from graphprune.graph import bind_arguments, get_attribute, op_name
from graphprune.rules import rule_for
from graphprune.rules.context import shape_of
from graphprune.units.name_patterns import common_module

_PASSING, _MOVING = ("pointwise", "normalization"), "shape"
"""Families of rules whose ops may stand on a stream: they compute element by element, or only move elements."""


@dataclass(frozen=True)
class Section:
    """A part of a graph that can be left out.

    Attributes:
        title: name for people: "layer2.1 residual branch", "encoder.layer.3".
        module: path of the module it belongs to.
        entry: the node whose value takes the place of the exit's.
        exit: the last node, of the same shape.
        nodes: what nobody needs without the section, the exit included.
        parameters: paths of the parameters read only inside it.
    """

    title: str
    module: str
    entry: fx.Node
    exit: fx.Node
    nodes: frozenset[fx.Node]
    parameters: tuple[str, ...]


class Streams:
    """Follows residual streams backwards through a graph.

    Attributes:
        gm: the graph.
        constant: nodes that are computed from parameters and constants alone.
        skips: each addition that closes a residual branch -> the operand that is not the branch.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.constant: set[fx.Node] = set()
        self.skips: dict[fx.Node, fx.Node] = {}
        self._ancestors: dict[fx.Node, int] = {}
        self._bits: dict[fx.Node, int] = {}
        for position, node in enumerate(gm.graph.nodes):
            self._bits[node] = 1 << position
            self._ancestors[node] = self._bits[node]
            for operand in node.all_input_nodes:
                self._ancestors[node] |= self._ancestors[operand]
            constants = all(operand in self.constant for operand in node.all_input_nodes)
            if node.op == "get_attr" or (node.op == "call_function" and constants):
                self.constant.add(node)
            elif op_name(node) == "add":
                skip = self._skip_of(node)
                if skip is not None:
                    self.skips[node] = skip

    def previous(self, node: fx.Node) -> fx.Node | None:
        """Return the node before ``node`` on its stream, or None if a layer is in between."""
        if node in self.skips:
            return self.skips[node]
        if moves_elements(node):
            return node.all_input_nodes[0]
        rule = rule_for(node) if node.op == "call_function" else None
        if rule is None or rule.family not in _PASSING:
            return None
        same = [o for o in node.all_input_nodes if o not in self.constant and same_shape(o, node)]
        weights = [o for o in node.all_input_nodes if o in self.constant and is_matrix(o)]
        return same[0] if len(same) == 1 and not weights else None

    def is_ancestor(self, early: fx.Node, late: fx.Node) -> bool:
        """Say whether ``late`` depends on ``early``."""
        return bool(self._ancestors[late] & self._bits[early])

    def _skip_of(self, node: fx.Node) -> fx.Node | None:
        """Return the operand ``x`` of an addition ``x + f(x)`` in which ``f`` has weights, or None."""
        arguments = bind_arguments(node)
        first, second = arguments["self"], arguments["other"]
        orders = [(first, second)] if arguments.get("alpha", 1) != 1 else [(first, second), (second, first)]
        for skip, branch in orders:
            if not (isinstance(skip, fx.Node) and isinstance(branch, fx.Node)):
                return None
            if self.constant & {skip, branch} or not same_shape(skip, node):
                continue
            if any(self.is_ancestor(origin, branch) for origin in self._origins(skip)):
                dead = needed_only_by(node, skip)
                if reads_weights(dead) and not any(inner in self.skips for inner in dead):
                    return skip
        return None

    def _origins(self, skip: fx.Node) -> list[fx.Node]:
        """Return the nodes on the stream that ``skip`` ends, back to the other side of the last addition.

        What a parameter scales is another stream: ``D * x`` beside the scan of a state-space layer is no skip.
        """
        found = [skip]
        passed = 0
        while passed < 2 and not any(operand in self.constant for operand in found[-1].all_input_nodes):
            passed += found[-1] in self.skips
            earlier = self.previous(found[-1])
            if earlier is None:
                break
            found.append(earlier)
        return found


def moves_elements(node: fx.Node) -> bool:
    """Say whether ``node`` only moves the elements of one tensor: a view, a transposition."""
    rule = rule_for(node) if node.op == "call_function" else None
    return rule is not None and rule.family == _MOVING and bool(node.all_input_nodes)


def find_branches(gm: fx.GraphModule) -> list[Section]:
    """Return every residual branch of a traced graph, in graph order; branches that contain others are left out."""
    sections = []
    for exit_node, entry in Streams(gm).skips.items():
        nodes = needed_only_by(exit_node, entry)
        module = common_module(path for path in _parameters_read(nodes) if _is_matrix(get_attribute(gm, path)))
        title = f"{module} residual branch".strip()
        sections.append(Section(title, module, entry, exit_node, nodes, parameters_of(nodes)))
    return with_distinct_titles(sections)


def with_distinct_titles(sections: list[Section]) -> list[Section]:
    """Number the sections whose titles are equal."""
    alike = Counter(section.title for section in sections)
    seen: Counter[str] = Counter()
    result = []
    for section in sections:
        seen[section.title] += 1
        number = f", {seen[section.title]}" if alike[section.title] > 1 else ""
        result.append(replace(section, title=section.title + number))
    return result


def needed_only_by(exit_node: fx.Node, entry: fx.Node) -> frozenset[fx.Node]:
    """Return the nodes, ``exit_node`` included, that nobody needs once ``entry`` takes its place."""
    dead = {exit_node}
    stack = list(exit_node.all_input_nodes)
    while stack:
        node = stack.pop()
        is_free = node is not entry and node.op in ("call_function", "get_attr") and node not in dead
        if is_free and all(user in dead for user in node.users):
            dead.add(node)
            stack.extend(node.all_input_nodes)
    return frozenset(dead)


def reads_weights(nodes: Iterable[fx.Node]) -> bool:
    """Say whether a parameter of more than one axis is read by ``nodes``."""
    inside = set(nodes)
    return any(operand.op == "get_attr" and is_matrix(operand) for node in inside for operand in node.all_input_nodes)


def _parameters_read(nodes: Iterable[fx.Node]) -> list[str]:
    found = (o for node in nodes for o in node.all_input_nodes if o.op == "get_attr")
    return list(dict.fromkeys(str(operand.target) for operand in found))


def parameters_of(nodes: Iterable[fx.Node]) -> tuple[str, ...]:
    """Return the paths of the parameters, buffers and constants that are read only by ``nodes``, sorted."""
    return tuple(sorted({str(node.target) for node in nodes if node.op == "get_attr"}))


def same_shape(a: fx.Node, b: fx.Node) -> bool:
    """Say whether two nodes have tensors of equal shape, dynamic sizes compared as expressions."""
    first, second = a.meta.get("val"), b.meta.get("val")
    tensors = isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
    return tensors and shape_of(first) == shape_of(second)


def is_matrix(node: fx.Node) -> bool:
    """Say whether the node's value has more than one axis longer than 1."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and _is_matrix(value)


def _is_matrix(value: torch.Tensor) -> bool:
    return sum(size != 1 for size in value.shape) > 1
