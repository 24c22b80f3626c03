"""Leaves sections out of a graph: whoever read a section's exit reads its entry instead."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from graphprune.errors import VerificationError
from graphprune.graph import copy_graph_module, graph_info, is_traced, prune_unused_attributes
from graphprune.graph import share_graph_module as shared
from graphprune.propagation import check_runs
from graphprune.rules.context import shape_of
from graphprune.sections.residuals import Section


def bypass(gm: fx.GraphModule, sections: Iterable[Section], *, share: bool = False) -> fx.GraphModule:
    """Return ``gm`` without these sections; ``gm`` itself stays as it is.

    Args:
        gm: the graph the sections are of.
        sections: what to leave out.
        share: use the very parameters of ``gm`` rather than copies.

    Raises:
        VerificationError: if a node has another shape afterwards (a bug in graphprune).
    """
    result = shared(gm) if share else copy_graph_module(gm)
    by_name = {node.name: node for node in result.graph.nodes}
    shapes = {node.name: _shape(node) for node in result.graph.nodes}
    for section in sections:
        # Where the section before this one went too, its entry has taken the place of this one's entry already.
        exit_node = by_name[section.exit.name]
        entry = by_name[section.entry.name]
        replacement = _as_dtype(result, entry, exit_node)
        exit_node.replace_all_uses_with(replacement)
        for name, node in by_name.items():
            if node is exit_node:
                by_name[name] = replacement
    # A dropout or an attention that nobody reads goes like any other node, though it draws random numbers.
    result.graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or node.is_impure(impure_random=False)
    )
    prune_unused_attributes(result)
    if is_traced(result):
        info, left = graph_info(result), {str(n.target) for n in result.graph.nodes if n.op == "get_attr"}
        info.weight_masks = {path: mask for path, mask in info.weight_masks.items() if path in left}
    result.graph.lint()
    result.recompile()
    _check(result, shapes)
    return result


def _as_dtype(gm: fx.GraphModule, entry: fx.Node, exit_node: fx.Node) -> fx.Node:
    """Return ``entry``, cast to the dtype of ``exit_node`` if it has another."""
    if entry.meta["val"].dtype == exit_node.meta["val"].dtype:
        return entry
    with gm.graph.inserting_after(entry):
        cast = gm.graph.call_function(torch.ops.aten.to.dtype, (entry, exit_node.meta["val"].dtype))
    cast.meta = {**entry.meta, "val": exit_node.meta["val"]}
    return cast


def _shape(node: fx.Node) -> list[str] | None:
    value = node.meta.get("val")
    return [str(size) for size in shape_of(value)] if isinstance(value, torch.Tensor) else None


def _check(gm: fx.GraphModule, shapes: dict[str, list[str] | None]) -> None:
    check_runs(gm, "the graph without the sections", "the model")
    for node in gm.graph.nodes:
        before, after = shapes.get(node.name), _shape(node)
        if before is not None and before != after:
            raise VerificationError(
                f"{node.name} has shape {after} without the sections, was {before}",
                node=node,
                hint="this is a bug in graphprune: please report the model",
            )
