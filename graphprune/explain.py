"""Explains an axis: which parameters go with it, or the chain of ops that pins it, with the user's source lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from torch import fx

from graphprune.axes import leaves, pin_of, resolve
from graphprune.errors import source_line
from graphprune.inference import Typing
from graphprune.units.dimensions import Dimension

MAX_MEMBERS = 12


def explain_axis(gm: fx.GraphModule, typing: Typing, dimensions: Sequence[Dimension], parameter: str, axis: int) -> str:
    """Return the explanation as text of several lines."""
    axis_type = typing.attributes[parameter][axis]
    lines = [f"{parameter} axis {axis}: {resolve(axis_type)}"]
    pin = pin_of(axis_type)
    if pin is not None:
        lines.append(f"  cannot lose elements: {pin.reason}")
        lines += _chain_to_pin(gm, typing, typing.origins[parameter][axis], pin.node)
        return "\n".join(lines)
    wanted = {leaf.identity for leaf in leaves(axis_type)}
    for dimension in dimensions:
        if dimension.leaf in wanted:
            others = _listing([f"{path}:{d}" for path, d in dimension.members if (path, d) != (parameter, axis)])
            lines.append(f"  {dimension.title}, of kind {dimension.kind}, goes together with: {others}")
            if dimension.statistics:
                lines.append(f"    renormalised at: {', '.join(dimension.statistics[:MAX_MEMBERS])}")
    for leaf in leaves(axis_type):
        if leaf.pin is not None:
            lines.append(f"  {leaf.size} of its elements or factors are pinned: {leaf.pin.reason}")
    return "\n".join(lines)


def _listing(names: list[str]) -> str:
    if not names:
        return "nothing else"
    more = f", and {len(names) - MAX_MEMBERS} more" if len(names) > MAX_MEMBERS else ""
    return ", ".join(names[:MAX_MEMBERS]) + more


def _chain_to_pin(gm: fx.GraphModule, typing: Typing, origin: int, culprit: str | None) -> list[str]:
    """Return one line for each op on the shortest way from the axis to the leaf that was pinned first."""
    solver = typing.solver
    neighbours: dict[int, list[tuple[int, str | None]]] = {}
    for link in solver.links:
        neighbours.setdefault(link.first, []).append((link.second, link.node))
        neighbours.setdefault(link.second, []).append((link.first, link.node))
    came_from: dict[int, tuple[int, str | None] | None] = {origin: None}
    queue = deque([origin])
    target = None
    while queue:
        current = queue.popleft()
        pin = solver.pins.get(current)
        if pin is not None and pin.node is not None and (pin.node == culprit or culprit is None):
            target = current
            break
        for other, node in neighbours.get(current, []):
            if other not in came_from:
                came_from[other] = (current, node)
                queue.append(other)
    names: list[str] = []
    step = None if target is None else came_from[target]
    while step is not None:
        if step[1] is not None and step[1] not in names:
            names.append(step[1])
        step = came_from[step[0]]
    if culprit is not None and (not names or names[0] != culprit):
        names.insert(0, culprit)
    by_name = {node.name: node for node in gm.graph.nodes}
    return [f"  {'pinned at' if name == culprit else 'tied by'} {_describe(by_name[name])}" for name in reversed(names)]


def _describe(node: fx.Node) -> str:
    source = source_line(node)
    return f"{node.name} ({node.target})" + (f"  [{source}]" if source else "")
