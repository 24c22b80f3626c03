"""What free selections mean for plans: who reads a shared value directly, and what the gathers move."""

from __future__ import annotations

from graphprune.axes import KeepMasks, leaves, multiply
from graphprune.inference import Typing
from graphprune.rules.context import flatten


def read_by_selection_only(typing: Typing) -> set[int]:
    """Return the leaves that free selections take from and that no op sums over otherwise.

    What no selection takes of them, nobody needs.
    """
    if not typing.subsets:
        return set()
    selecting = {edge.node for edge in typing.subsets}
    selected = {leaf.identity for edge in typing.subsets for leaf in leaves(edge.whole)}
    for node, typed in typing.types.items():
        if node.op != "call_function" or node.name in selecting:
            continue
        results = {leaf.identity for axis in flatten(typed) for leaf in leaves(axis)}
        for operand in node.all_input_nodes:
            for axis in flatten(typing.types.get(operand, [])) if operand.op != "get_attr" else ():
                selected -= {leaf.identity for leaf in leaves(axis)} - results
    return selected


def gather_note(typing: Typing, masks: KeepMasks) -> tuple[str, ...]:
    """Return a remark on the selections that gather under ``masks``: how many there are and what they move."""
    nodes = {node.name: typed for node, typed in typing.types.items()}
    active = [edge for edge in typing.subsets if masks.count(edge.part) != masks.count(edge.whole)]
    if not active:
        return ()
    moved = sum(
        int(size) for edge in active if isinstance(size := multiply(map(masks.count, flatten(nodes[edge.node]))), int)
    )
    return (f"{len(active)} free selections gather {moved:,} elements a run (equal ones are done once)",)
