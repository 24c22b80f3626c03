"""Repeated blocks: the encoder layers, inverted residuals, Mamba blocks of a graph that can be left out whole.

A block is one call of a module that stands beside another one of its class and that a residual stream runs through:
from its exit one gets to its entry over residual additions, norms, views and element-wise ops alone.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprune.sections.residuals import (
    Section,
    Streams,
    moves_elements,
    needed_only_by,
    parameters_of,
    reads_weights,
    same_shape,
    with_distinct_titles,
)

_CALL = re.compile(r"@\d+$")


def find_blocks(gm: fx.GraphModule) -> list[Section]:
    """Return the innermost repeated blocks of a traced graph that can be left out, in graph order."""
    calls, classes = _module_calls(gm)
    repeated = _repeated(classes)
    streams = Streams(gm)
    found: dict[str, Section] = {}
    for path, nodes in calls.items():
        if path in repeated:
            section = _section(path, nodes, streams)
            if section is not None:
                found[path] = section
    innermost = [path for path in found if not any(calls[other] < calls[path] for other in found)]
    order = {node: position for position, node in enumerate(gm.graph.nodes)}
    return with_distinct_titles(sorted((found[path] for path in innermost), key=lambda s: order[s.exit]))


def _module_calls(gm: fx.GraphModule) -> tuple[Mapping[str, set[fx.Node]], dict[str, str]]:
    """Return the nodes made by each call of each module (``layer``, ``layer@1``), and the module's class."""
    calls: defaultdict[str, set[fx.Node]] = defaultdict(set)
    classes: dict[str, str] = {}
    for node in gm.graph.nodes:
        if node.op == "call_function":
            for key, (path, class_) in (node.meta.get("nn_module_stack") or {}).items():
                again = _CALL.search(key)  # torch.export numbers the calls of one module in the key alone
                call = path + again[0] if again else path
                calls[call].add(node)
                classes[call] = str(class_)
    return calls, classes


def _repeated(classes: Mapping[str, str]) -> set[str]:
    """Return the calls of modules beside another of their class; where a stage has one block, other stages count."""
    siblings = Counter(_parent(path) for path in classes)
    here = Counter((_parent(path), name) for path, name in classes.items())
    anywhere = Counter((_unnumbered(path), name) for path, name in classes.items())
    return {
        path
        for path, name in classes.items()
        if here[_parent(path), name] > 1
        or (
            siblings[_parent(path)] == 1
            and _CALL.sub("", path)[-1:].isdigit()
            and anywhere[_unnumbered(path), name] > 1
        )
    }


def _unnumbered(path: str) -> str:
    return re.sub(r"\d+", "", _CALL.sub("", path))


def _parent(path: str) -> str:
    return _CALL.sub("", path).rpartition(".")[0]


def _section(path: str, nodes: set[fx.Node], streams: Streams) -> Section | None:
    """Return the section from where the stream enters the module to where it leaves it, or None if there is none."""
    leaving = [node for node in nodes if any(user not in nodes for user in node.users)]
    for exit_node in leaving:
        way = _way_in(exit_node, nodes, streams)
        if not way or not same_shape(way[0], exit_node) or not _arrives_in_order(way):
            continue
        entry = way[0]
        dead = needed_only_by(exit_node, entry)
        if reads_weights(dead):
            module = _CALL.sub("", path)
            return Section(module, module, entry, exit_node, dead, parameters_of(dead))
    return None


def _way_in(exit_node: fx.Node, nodes: set[fx.Node], streams: Streams) -> list[fx.Node]:
    """Follow the stream backwards to the first node outside, over at least one branch; return the way, entry first."""
    way = [exit_node]
    while way[-1] in nodes:
        earlier = streams.previous(way[-1])
        if earlier is None:
            return []
        way.append(earlier)
    return way[::-1] if any(node in streams.skips for node in way[:-1]) else []


def _arrives_in_order(way: list[fx.Node]) -> bool:
    """Say whether each element of the entry stands at its old place in the exit, after all the views on the way."""
    movements = [(before, node) for before, node in itertools.pairwise(way) if moves_elements(node)]
    if not movements:
        return True
    shape = [_number(size) for size in way[0].meta["val"].shape]
    positions = torch.arange(math.prod(shape)).view(shape)
    moved = positions
    for before, node in movements:
        values = {operand: _number(operand.meta.get("val")) for operand in node.all_input_nodes} | {before: moved}
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        assert callable(node.target)
        moved = node.target(*args, **kwargs)
    return torch.equal(moved, positions)


def _number(value: Any) -> Any:
    """Return the example's value of a dynamic size."""
    return value.node.hint if isinstance(value, torch.SymInt) else value
