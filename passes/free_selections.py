"""Lets readers of a shared value choose channels of their own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.analysis import Analysis, analyze
from graphprune.axes import leaves
from graphprune.graph import get_attribute
from graphprune.ops import SELECT_CHANNELS
from graphprune.pass_base import Pass
from graphprune.rules.context import axes_of
from graphprune.sparsity.weights import weight_uses

GATHER_COST = 16
"""Multiply-accumulates in whose time one gathered float is read and written, roughly."""


@dataclass(frozen=True)
class FreeSelections(Pass):
    """Insert selections that a pruning pass after it may use: ``[FreeSelections(), PruneChannels(ratio=0.5)]``.

    A layer that reads a shared value (a residual stream) then keeps channels of its own; the value itself keeps the
    union of what anybody reads. Where a table computed without parameters (rotary cosines and sines, positions) meets
    activations, each layer keeps columns or pairs of its own. Selections become ``index_select`` or slices when the
    graph is shrunk, and vanish where they take everything.

    Attributes:
        streams: offer selections to linear and convolution layers that share a value with others.
        constants: offer them where tables that several layers share meet activations.
        keep: fraction of channels a reader is expected to keep; with it the multiply-accumulates saved must outweigh
            the gather, else no selection is inserted.
    """

    streams: bool = True
    constants: bool = True
    keep: float = 0.5

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Insert the selections; the summary says where, and which were not worth their gather."""
        analysis = analyze(gm)
        inserted: list[str] = []
        refused: dict[str, str] = {}
        prunable = {dimension.leaf for dimension in analysis.dimensions}
        tables = _table_edges(analysis, prunable) if self.constants else []
        streams = self._stream_edges(analysis, prunable, refused) if self.streams else []
        order = {node: position for position, node in enumerate(gm.graph.nodes)}
        for value, dim, readers in [*tables, *streams]:
            inserted.append(_insert(gm, value, dim, sorted(readers, key=order.__getitem__)).name)
        gm.recompile()
        return gm, {"inserted": inserted, "refused": refused}

    def _stream_edges(
        self, analysis: Analysis, prunable: set[int], refused: dict[str, str]
    ) -> list[tuple[fx.Node, int, list[fx.Node]]]:
        """Return (value, axis, readers) for values whose channels other readers share and that are worth a gather."""
        uses: dict[tuple[fx.Node, int], list[fx.Node]] = defaultdict(list)
        saved: dict[tuple[fx.Node, int], int] = defaultdict(int)
        for use in weight_uses(analysis.gm):
            if use.groups == 1 and use.activation in analysis.typing.types:
                key = use.activation, use.activation_axis
                uses[key].append(use.node)
                weight = get_attribute(analysis.gm, use.path)
                saved[key] += int(weight.numel() // weight.shape[use.input_axis])
        sharing: dict[int, set[fx.Node]] = defaultdict(set)
        for value, axis in uses:
            for leaf in prunable & _leaves(analysis, value, axis):
                sharing[leaf].add(value)
        edges = []
        for (value, axis), readers in uses.items():
            if not any(len(sharing[leaf]) > 1 for leaf in prunable & _leaves(analysis, value, axis)):
                continue
            if saved[value, axis] * (1 - self.keep) <= GATHER_COST * self.keep:
                refused[value.name] = f"{saved[value, axis]} MACs a channel do not pay for moving it"
            else:
                edges.append((value, axis, readers))
        return edges


def _table_edges(analysis: Analysis, prunable: set[int]) -> list[tuple[fx.Node, int, list[fx.Node]]]:
    """Return (table, axis, [reader]) wherever a value computed without parameters meets one computed with them."""
    plain: set[fx.Node] = set()
    edges = []
    for node in analysis.gm.graph.nodes:
        if node.op == "placeholder" or (node.op == "get_attr" and str(node.target) not in analysis.typing.parameters):
            plain.add(node)
        elif node.op == "call_function":
            tables = [operand for operand in node.all_input_nodes if operand in plain]
            if len(tables) == len(node.all_input_nodes):
                plain.add(node)
                continue
            for table in tables:
                if table.op == "get_attr" and len(table.users) == 1:
                    continue  # the statistics of one batch norm, say: nobody else reads them
                value = table.meta.get("val")
                if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
                    continue
                for d, axis in enumerate(axes_of(analysis.typing.types, table)):
                    if isinstance(axis.size, int) and prunable & _leaves(analysis, table, d):
                        edges.append((table, d, [node]))
    return edges


def _leaves(analysis: Analysis, node: fx.Node, d: int) -> set[int]:
    return {leaf.identity for leaf in leaves(axes_of(analysis.typing.types, node)[d])}


def _insert(gm: fx.GraphModule, value: fx.Node, dim: int, readers: list[fx.Node]) -> fx.Node:
    """Put a selection on the way from ``value`` to ``readers``, which are in graph order."""
    with gm.graph.inserting_before(readers[0]):
        selection = gm.graph.call_function(SELECT_CHANNELS, (value, dim))
    selection.meta = dict(value.meta)
    for reader in readers:
        reader.replace_input_with(value, selection)
    return selection
