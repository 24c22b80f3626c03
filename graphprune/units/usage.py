"""How a graph uses each leaf: which layers create it, which contract it, and whether additions join several of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, KeysView
from dataclasses import dataclass, field

from torch import fx

from graphprune.axes import Axis, leaves, resolve
from graphprune.graph import module_paths, op_name
from graphprune.inference import Typing
from graphprune.rules.context import flatten

_ADDITIONS = frozenset({"add", "sub", "rsub"})
_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum"})
_ATTENTION = "scaled_dot_product_attention"
_CONVOLUTIONS = frozenset({"convolution", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))})


@dataclass
class LeafUsage:
    """How one leaf is used.

    Attributes:
        creators: paths of the parameters with which layers create it: weights of linears and convolutions, tables.
        readers: paths of the parameters with which layers contract it.
        is_table_width: it is the width of a table that is looked into (``embedding``).
        is_convolved: a convolution reads it, contracting it or channel by channel.
        is_convolution_output: a convolution creates it.
        is_compared: a product of two activations contracts it, as that of queries and keys does.
        is_averaged: a product of two activations carries it on from one of them, as that of scores and values does.
        is_stream: additions join it from several creators, and a layer that reads it comes before one that creates it.
        joins: module paths of the additions that join it from several creators.
    """

    creators: dict[str, None] = field(default_factory=dict)
    readers: dict[str, None] = field(default_factory=dict)
    is_table_width: bool = False
    is_convolved: bool = False
    is_convolution_output: bool = False
    is_compared: bool = False
    is_averaged: bool = False
    is_stream: bool = False
    joins: dict[str, None] = field(default_factory=dict)


def leaf_usage(typing: Typing, wanted: Iterable[int]) -> dict[int, LeafUsage]:
    """Return the usage of each of the ``wanted`` leaves, by identity."""
    return _Walk(typing, frozenset(wanted)).run()


class _Walk:
    """One walk over the nodes, in order.

    For each value and each leaf it carries, ``_sources`` holds the nodes that created the leaf, as bits of an int.
    """

    def __init__(self, typing: Typing, wanted: frozenset[int]) -> None:
        self._typing = typing
        self._wanted = wanted
        self._usage = {identity: LeafUsage() for identity in wanted}
        self._leaves: dict[int, frozenset[int]] = {}
        self._constant: set[fx.Node] = set()
        self._sources: dict[fx.Node, dict[int, int]] = {}
        self._first_read: dict[int, int] = {}
        self._last_created: dict[int, int] = {}

    def run(self) -> dict[int, LeafUsage]:
        for position, node in enumerate(self._typing.types):
            if node.op == "get_attr" or (node.op == "call_function" and self._is_constant(node)):
                self._constant.add(node)
            elif node.op == "call_function":
                self._visit(position, node)
        for identity, usage in self._usage.items():
            read = self._first_read.get(identity)
            usage.is_stream = bool(usage.joins) and read is not None and read < self._last_created.get(identity, -1)
        return self._usage

    def _is_constant(self, node: fx.Node) -> bool:
        """Say whether the value is computed from parameters and buffers alone."""
        return all(operand in self._constant for operand in node.all_input_nodes)

    def _carried(self, node: fx.Node) -> frozenset[int]:
        typed = self._typing.types.get(node)
        if typed is None:
            return frozenset()
        found: frozenset[int] = frozenset()
        for axis in flatten(typed):
            found |= self._leaves_of(axis)
        return found

    def _leaves_of(self, axis: Axis) -> frozenset[int]:
        axis = resolve(axis)
        if axis.identity not in self._leaves:
            self._leaves[axis.identity] = frozenset(leaf.identity for leaf in leaves(axis)) & self._wanted
        return self._leaves[axis.identity]

    def _visit(self, position: int, node: fx.Node) -> None:
        operands = [operand for operand in node.all_input_nodes if operand in self._typing.types]
        constants = [operand for operand in operands if operand in self._constant]
        carried = self._carried(node)
        arriving: dict[int, int] = {}
        for operand in operands:
            if operand not in self._constant:
                self._receive(node, arriving, self._sources.get(operand, {}))
        for constant in constants:
            for identity in self._carried(constant):
                if identity in arriving and identity not in carried:
                    self._first_read.setdefault(identity, position)
                    self._usage[identity].readers |= _parameters(constant)
                elif identity in carried and identity not in arriving:
                    self._last_created[identity] = position
                    self._usage[identity].creators |= _parameters(constant)
                    self._usage[identity].is_table_width |= op_name(node) == "embedding"
        self._note_op(node, carried, [self._sources[o].keys() for o in operands if o in self._sources])
        self._sources[node] = {identity: arriving.get(identity, 0) or 1 << position for identity in carried}

    def _note_op(self, node: fx.Node, carried: frozenset[int], operands: list[KeysView[int]]) -> None:
        """Note what convolutions and products of activations do with the leaves of their operands."""
        op = op_name(node)
        arriving = Counter(identity for operand in operands for identity in operand)
        if op in _CONVOLUTIONS:
            for identity in arriving:
                self._usage[identity].is_convolved = True
            for identity in carried:
                self._usage[identity].is_convolution_output = True
        elif op == _ATTENTION or (op in _PRODUCTS and len(operands) > 1):
            for identity, count in arriving.items():
                usage = self._usage[identity]
                usage.is_compared |= count > 1 and (op == _ATTENTION or identity not in carried)
                usage.is_averaged |= identity in carried and (op == _ATTENTION or count == 1)

    def _receive(self, node: fx.Node, arriving: dict[int, int], sources: dict[int, int]) -> None:
        """Merge the creators that one operand brings, and notice where an addition joins different ones."""
        for identity, theirs in sources.items():
            ours = arriving.get(identity, 0)
            if ours and ours | theirs not in (ours, theirs) and op_name(node) in _ADDITIONS:
                self._usage[identity].joins[next(iter(module_paths(node)), "")] = None
            arriving[identity] = ours | theirs


def _parameters(node: fx.Node) -> dict[str, None]:
    """Return the paths of the parameters that a constant value is computed from."""
    found: dict[str, None] = {}
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "get_attr":
            found[str(current.target)] = None
        stack.extend(current.all_input_nodes)
    return found
