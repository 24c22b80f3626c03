"""Rewrites LSTM, GRU and plain recurrent layers: one linear layer for all steps, then what depends on the step before.

The linear layer is like any other, sparse if its weight is; ``graphprune::recurrence`` does the rest in one loop, so
that neither the graph nor the time to compile it grows with the sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.graph import bind_arguments, get_attribute, items_read, op_name, replace_items
from graphprune.node_building import NodeBuilder
from graphprune.ops import RECURRENCE
from graphprune.propagation import is_symbolic

aten = torch.ops.aten

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True)
class _Cell:
    """The weights of one layer in one direction, as nodes; biases are None where the layer has none."""

    input_weight: fx.Node
    hidden_weight: fx.Node
    input_bias: fx.Node | None
    hidden_bias: fx.Node | None


def split_recurrent_layers(gm: fx.GraphModule) -> None:
    """Rewrite, in place, every recurrent layer in float32 with constant weights and neither projections nor packing."""
    for node in list(gm.graph.nodes):
        if op_name(node) in RECURRENT and _suits(node):
            with gm.graph.inserting_before(node):
                _split(gm, node)


def _suits(node: fx.Node) -> bool:
    bound = bind_arguments(node)
    if "data" in bound or (bound["train"] and bound["dropout"]):
        return False
    parameters = bound["params"]
    cells = bound["num_layers"] * (2 if bound["bidirectional"] else 1)
    plain = len(parameters) == cells * (4 if bound["has_biases"] else 2)
    constant = all(parameter.op == "get_attr" for parameter in parameters)
    value = bound["input"].meta["val"]
    static = not is_symbolic(value) and min(value.shape) > 0
    return plain and constant and static and items_read(node) is not None and value.dtype == torch.float32


def _split(gm: fx.GraphModule, node: fx.Node) -> None:
    bound = bind_arguments(node)
    build = NodeBuilder(gm, node)
    wanted = items_read(node) or set()
    states = list(bound["hx"]) if isinstance(bound["hx"], (tuple, list)) else [bound["hx"]]
    x, batched = bound["input"], bound["input"].meta["val"].dim() == 3
    if not batched:
        x = build.call(aten.unsqueeze.default, x, 1)
        states = [build.call(aten.unsqueeze.default, state, 1) for state in states]
    batch_first = batched and bound["batch_first"]
    directions = 2 if bound["bidirectional"] else 1
    finals: list[list[fx.Node]] = [[] for _ in states]
    cells = list(_cells(bound))
    for first in range(0, len(cells), directions):
        outputs = []
        for index in range(first, first + directions):
            begin = [build.call(aten.select.int, state, 0, index) for state in states]
            run = _Run(gm, build, node, cells[index], batch_first, reverse=index > first, needs_cell=2 in wanted)
            y, *last = run.emit(x, begin, needs_hidden=1 in wanted)
            outputs.append(y)
            for found, value in zip(finals, last, strict=False):
                found.append(value)
        x = outputs[0] if directions == 1 else build.call(aten.cat.default, outputs, -1)
    results = {0: x if batched else build.call(aten.squeeze.dim, x, 1)}
    for position, values in enumerate(finals, start=1):
        if values:
            stacked = build.call(aten.stack.default, values)
            results[position] = stacked if batched else build.call(aten.squeeze.dim, stacked, 1)
    replace_items(node, results)
    gm.graph.erase_node(node)


def _cells(bound: dict[str, Any]) -> Iterator[_Cell]:
    parameters, size = bound["params"], 4 if bound["has_biases"] else 2
    for start in range(0, len(parameters), size):
        weights = parameters[start : start + size]
        yield _Cell(*weights, *[None] * (4 - size))


@dataclass(frozen=True)
class _Run:
    """One layer in one direction on its way into the graph."""

    gm: fx.GraphModule
    build: NodeBuilder
    node: fx.Node
    cell: _Cell
    batch_first: bool
    reverse: bool
    needs_cell: bool

    def emit(self, x: fx.Node, begin: list[fx.Node], *, needs_hidden: bool) -> list[fx.Node]:
        """Return the outputs of all steps and, where they are needed, the last hidden and the last cell state."""
        kind = op_name(self.node)
        bias, step_bias = self._biases(kind)
        gates = self.build.call(aten.linear.default, x, self.cell.input_weight, bias)
        time = 1 if self.batch_first else 0
        steps = x.meta["val"].shape[time]
        order = (kind, self.batch_first, self.reverse, self.needs_cell)
        y = self.build.call(RECURRENCE, gates, self.cell.hidden_weight, step_bias, begin, *order)
        cell = None
        if self.needs_cell:  # one more row holds the cell state
            cell = self.build.call(aten.select.int, y, time, steps)
            y = self.build.call(aten.slice.Tensor, y, time, 0, steps)
        hidden = self.build.call(aten.select.int, y, time, 0 if self.reverse else steps - 1)
        if cell is not None:
            return [y, hidden, cell]
        return [y, hidden] if needs_hidden else [y]

    def _biases(self, kind: str) -> tuple[fx.Node | None, fx.Node | None]:
        """Return what the linear layer adds, and what each step adds inside: a GRU's last gate scales its product."""
        if self.cell.input_bias is None or self.cell.hidden_bias is None:
            return None, None
        path = str(self.cell.input_bias.target)
        outside = get_attribute(self.gm, path).detach().clone()
        inside = get_attribute(self.gm, str(self.cell.hidden_bias.target)).detach()
        if kind != "gru":
            return self.build.attribute(f"{path}_of_{self.node.name}", outside + inside), None
        kept = 2 * (len(inside) // 3)
        outside[:kept] += inside[:kept]
        step = self.build.attribute(f"{path}_of_{self.node.name}_step", inside[kept:].clone())
        return self.build.attribute(f"{path}_of_{self.node.name}", outside), step
