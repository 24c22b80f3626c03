"""Everything a page shows, as plain data: nodes, calls, axis types, dimensions, pins, and a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.analysis import Analysis
from graphprune.axes import Axis
from graphprune.drawing.axis_table import AxisTable
from graphprune.drawing.calls import Call, call_tree
from graphprune.drawing.layers import Slot
from graphprune.drawing.nesting import NestedArrangement, arrange_calls
from graphprune.drawing.palette import colour
from graphprune.errors import source_line
from graphprune.graph import attribute_tensors, op_name
from graphprune.plans import Plan
from graphprune.units.dimensions import Dimension

VISIBLE_AT_FIRST = 48
"""Calls are expanded, outermost first, while the picture has at most this many boxes."""


def page_content(analysis: Analysis, title: str, plan: Plan | None) -> dict[str, Any]:
    """Return the content of a page as JSON data.

    Raises:
        MaskError: if ``plan`` was made for another graph.
    """
    return _Content(analysis, plan).collect(title)


class _Content:
    """Gathers the parts of a page; nodes, parameters and axis types are numbered and refer to each other by number."""

    def __init__(self, analysis: Analysis, plan: Plan | None) -> None:
        self.analysis = analysis
        self.plan = plan
        self.typing = analysis.typing
        graph = analysis.gm.graph
        self.nodes: list[fx.Node] = [node for node in graph.nodes if node.op != "get_attr"]
        self.node_numbers = {node.name: number for number, node in enumerate(self.nodes)}
        self.tensors = attribute_tensors(analysis.gm)
        self.parameter_numbers = {path: number for number, path in enumerate(self.tensors)}
        dimension_of = {d.leaf: number for number, d in enumerate(analysis.dimensions)}
        masks = None if plan is None else analysis.masks(plan)
        self.axes = AxisTable(dimension_of, self.node_numbers, masks)

    def collect(self, title: str) -> dict[str, Any]:
        """Return all parts."""
        calls = call_tree(self.nodes)
        edges = [
            (self.node_numbers[source.name], number)
            for number, node in enumerate(self.nodes)
            for source in node.all_input_nodes
            if source.op != "get_attr"
        ]
        arrangements = arrange_calls(calls, edges)
        content = {
            "title": title,
            "fingerprint": self.analysis.fingerprint,
            "cost": self.analysis.cost(),
            "parameters": [self._parameter(path) for path in self.tensors],
            "nodes": [self._node(node) for node in self.nodes],
            "calls": [_call(call, arrangements[call.identity]) for call in calls],
            "open": opened_at_first(calls, len(self.nodes)),
            "dimensions": self._dimensions(),
            "reachable": self._reachable(),
            "pins": self._pins(),
            "unknown": {op: [self.node_numbers[n] for n in names] for op, names in self.typing.unknown.items()},
            "plan": self._plan(),
        }
        return content | {"axes": self.axes.rows}

    def _parameter(self, path: str) -> dict[str, Any]:
        return {
            "path": path,
            "axes": self._numbers(self.typing.attributes.get(path, [])),
            "elements": self.tensors[path].numel(),
            "trained": path in self.typing.parameters,
        }

    def _node(self, node: fx.Node) -> dict[str, Any]:
        values = self._values(node)
        attributes = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
        return {
            "name": node.name,
            "op": op_name(node) or {"placeholder": "input"}.get(node.op, node.op),
            "target": str(node.target),
            "values": [self._numbers(axes) for axes in values],
            "dtype": _dtype(node),
            "inputs": [self.node_numbers[s.name] for s in node.all_input_nodes if s.op != "get_attr"],
            "parameters": [self.parameter_numbers[path] for path in attributes if path in self.parameter_numbers],
            "colours": self._channel(values),
            "source": source_line(node) or "",
        }

    def _values(self, node: fx.Node) -> list[list[Axis]]:
        """Return the axes of each tensor that a node computes."""
        typed = self.typing.types.get(node)
        if typed is None:
            return []
        tensors = [item for item in typed if isinstance(item, list)]
        return tensors or [[axis for axis in typed if isinstance(axis, Axis)]]

    def _channel(self, values: Sequence[list[Axis]]) -> list[int]:
        """Return the dimensions of the value's channel axis: the axis with the largest prunable dimension."""
        sizes = [d.size for d in self.analysis.dimensions]
        found = [self.axes.dimensions(axis) for axes in values for axis in axes]
        return max((f for f in found if f), key=lambda numbers: sizes[numbers[0]], default=[])

    def _numbers(self, axes: Sequence[Axis]) -> list[int]:
        return [self.axes.number(axis) for axis in axes]

    def _dimensions(self) -> list[dict[str, Any]]:
        rows = []
        for number, dimension in enumerate(self.analysis.dimensions):
            reached = {path for path, _ in dimension.members}
            rows.append(
                {
                    "name": dimension.name,
                    "title": dimension.title,
                    "kind": dimension.kind,
                    "size": dimension.size,
                    "colour": colour(number),
                    "parameters": sum(self.tensors[path].numel() for path in reached),
                    "members": [[self.parameter_numbers[path], axis] for path, axis in dimension.members],
                    "outer": self._outer(dimension),
                    "statistics": [self.node_numbers[name] for name in dimension.statistics],
                }
            )
        return rows

    def _outer(self, dimension: Dimension) -> str:
        """Return the title of the dimension between whose elements the choice may differ, or ""."""
        outer = self.analysis.unevenness[dimension.name].outer
        return next((d.title for d in self.analysis.dimensions if d.name == outer), "")

    def _reachable(self) -> int:
        """Return the number of parameters that some dimension reaches."""
        paths = {path for dimension in self.analysis.dimensions for path, _ in dimension.members}
        return sum(self.tensors[path].numel() for path in paths)

    def _pins(self) -> list[dict[str, Any]]:
        """Return the reasons for which parameter axes stay, most frequent first."""
        by_reason: dict[str, list[list[int]]] = {}
        for path, axis, reason in self.analysis.pins:
            by_reason.setdefault(reason, []).append([self.parameter_numbers[path], axis])
        ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
        return [{"reason": reason, "members": members} for reason, members in ordered]

    def _plan(self) -> dict[str, Any] | None:
        if self.plan is None:
            return None
        numbers = {dimension.name: number for number, dimension in enumerate(self.analysis.dimensions)}
        choices = {
            str(numbers[choice.name]): {
                "kept": choice.kept,
                "requested": choice.requested,
                "rows": [_runs(row.tolist()) for row in np.atleast_2d(choice.keep)],
            }
            for choice in self.plan.choices
        }
        zeroed = {path: 1 - mask.float().mean().item() for path, mask in self.plan.weight_masks.items()}
        cost = {name: list(pair) for name, pair in self.plan.cost.items()}
        return {"choices": choices, "cost": cost, "notes": list(self.plan.notes), "zeroed": zeroed}


def opened_at_first(calls: Sequence[Call], node_count: int) -> list[int]:
    """Return the calls to expand at first: breadth first, while the picture stays small."""
    by_identity = {call.identity: call for call in calls}
    visible, opened, queue = len(calls[0].children), [calls[0].identity], list(calls[0].children)
    for child in queue:
        if child < node_count:
            continue
        inner = by_identity[child].children
        if visible + len(inner) > VISIBLE_AT_FIRST:
            continue
        visible += len(inner)
        opened.append(child)
        queue += inner
    return opened


def _call(call: Call, nested: NestedArrangement) -> dict[str, Any]:
    layers = [[_slot(slot, nested.items) for slot in layer] for layer in nested.arrangement.layers]
    return {
        "id": call.identity,
        "path": call.path,
        "class": call.class_name,
        "parent": call.parent,
        "children": call.children,
        "layers": layers,
        "pieces": nested.arrangement.pieces,
    }


def _slot(slot: Slot, items: Sequence[tuple[str, int]]) -> list[Any]:
    """Return a bend as ["b", value], and an item as "i", "c" or "o" for entering, child, leaving, with its number."""
    if slot.item is None:
        return ["b", slot.value]
    kind, number = items[slot.item]
    return [kind[0], number]


def _dtype(node: fx.Node) -> str:
    value = node.meta.get("val")
    return str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else ""


def _runs(positions: list[int]) -> list[list[int]]:
    """Return sorted positions as [start, length] runs."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([position, 1])
    return runs
