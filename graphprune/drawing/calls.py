"""The module calls that made a graph, as a tree: what a picture collapses and expands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

Frame = tuple[str, str, str]
"""One open module call: a key that tells calls apart, the module's path, and its class."""


@dataclass
class Call:
    """One call of a module: a run of consecutive nodes, so a graph of calls has no cycles.

    Attributes:
        identity: number of the call; nodes have the numbers below those of all calls.
        path: dotted path of the module, "" for the model.
        class_name: of the module, "" if unknown.
        parent: identity of the enclosing call, None for the model.
        children: numbers of nodes and calls, in graph order.
    """

    identity: int
    path: str
    class_name: str
    parent: int | None
    children: list[int] = field(default_factory=list)


def call_tree(nodes: Sequence[fx.Node]) -> list[Call]:
    """Return the calls that made ``nodes``, which are in graph order; the first one is the model itself.

    Nodes count from 0, calls from ``len(nodes)``. Calls around a single child are left out. Where the trace kept no
    module calls (graphs of ``symbolic_trace``), the paths of the parameters that nodes read stand in for them.
    """
    stacks = _stacks(nodes)
    root = Call(len(nodes), "", "", None)
    calls, open_calls, open_frames = [root], [root], list[Frame]()
    for number, frames in enumerate(stacks):
        shared = _common_prefix(open_frames, frames)
        del open_calls[shared + 1 :]
        for _, path, class_name in frames[shared:]:
            call = Call(len(nodes) + len(calls), path, class_name, open_calls[-1].identity)
            open_calls[-1].children.append(call.identity)
            calls.append(call)
            open_calls.append(call)
        open_frames = frames
        open_calls[-1].children.append(number)
    return _without_wrappers(calls, len(nodes))


def _stacks(nodes: Sequence[fx.Node]) -> list[list[Frame]]:
    """Return the open calls of each node, outermost first; a node that does not know is where the last one was."""
    known = [_frames(node.meta.get("nn_module_stack")) for node in nodes]
    if not any(known):
        known = [_frames_of_parameters(node) for node in nodes]
    stacks: list[list[Frame]] = []
    for node, frames in zip(nodes, known):
        if frames is None:
            inside = stacks and node.op == "call_function"
            frames = stacks[-1] if inside else []
        stacks.append(frames)
    return stacks


def _frames(stack: Any) -> list[Frame] | None:
    if not stack:
        return None
    frames = [(str(key), str(path), _class_name(kind)) for key, (path, kind) in stack.items()]
    return [frame for frame in frames if frame[1]]


def _class_name(kind: Any) -> str:
    name = kind if isinstance(kind, str) else kind.__qualname__
    return name.rpartition(".")[2]


def _frames_of_parameters(node: fx.Node) -> list[Frame] | None:
    owners = [str(source.target).rpartition(".")[0] for source in node.all_input_nodes if source.op == "get_attr"]
    if not owners:
        return None
    names = owners[0].split(".") if owners[0] else []
    paths = [".".join(names[: count + 1]) for count in range(len(names))]
    return [(path, path, "") for path in paths]


def _common_prefix(first: list[Frame], second: list[Frame]) -> int:
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return length


def _without_wrappers(calls: list[Call], node_count: int) -> list[Call]:
    """Put the only child of a call in its place."""
    by_identity = {call.identity: call for call in calls}
    for call in reversed(calls):
        call.children = [_unwrap(child, by_identity) for child in call.children]
    kept = [calls[0]]
    for call in kept:
        for child in call.children:
            if child >= node_count:
                by_identity[child].parent = call.identity
                kept.append(by_identity[child])
    return kept


def _unwrap(child: int, by_identity: dict[int, Call]) -> int:
    call = by_identity.get(child)
    return call.children[0] if call is not None and len(call.children) == 1 else child


def parents(calls: Iterable[Call]) -> dict[int, int]:
    """Return the number of the enclosing call of every node and call but the model."""
    return {child: call.identity for call in calls for child in call.children}
