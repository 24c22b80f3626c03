"""Brings a traced graph to one spelling of each thing, so that later code sees few forms.

Steps, in the order they are applied:

- regions under ``no_grad``, ``enable_grad`` and ``autocast`` are inlined, autocast's casts written out;
- assertions and guards are dropped (graphprune makes its own shape checks);
- ``alias`` and ``detach`` are dropped;
- in-place ops become functional, except where the caller can see the write;
- ``lift_fresh_copy`` of a constant is dropped where nothing writes to the copy;
- ``chunk``, ``split`` and ``tensor_split`` become ``split_with_sizes`` where sizes are static;
- dead nodes are removed.

The values a graph computes do not change. Gradients may: where the model's code stopped them by ``no_grad`` or
``detach`` they now flow.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from graphprune.canonicalize.alias_groups import written_operands
from graphprune.canonicalize.autocast import drop_autocast_markers, uses_autocast, write_casts
from graphprune.canonicalize.functionalize import functionalize
from graphprune.canonicalize.regions import inline_regions
from graphprune.graph import bind_arguments, op_name

aten = torch.ops.aten

_ASSERTIONS = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range"}
_ASSERTIONS |= {"sym_constrain_range_for_size"}
_SPLITS = {"chunk", "split", "tensor_split"}


def canonicalize(gm: fx.GraphModule) -> fx.GraphModule:
    """Rewrite ``gm`` in place into canonical form and return it; every node that had ``meta["val"]`` keeps it.

    Raises:
        TraceError: if the casts of an autocast region cannot be recovered.
    """
    has_casts = uses_autocast(gm)
    inline_regions(gm)
    drop_autocast_markers(gm)
    _drop_assertions(gm)
    if has_casts:
        write_casts(gm)
    _drop_calls(gm, {aten.alias.default, aten.detach.default, aten.detach_.default})
    functionalize(gm)
    if not any(written_operands(node) for node in gm.graph.nodes):
        _drop_calls(gm, {aten.lift_fresh_copy.default})
    _split_by_sizes(gm)
    gm.graph.eliminate_dead_code()
    gm.delete_all_unused_submodules()
    gm.graph.lint()
    gm.recompile()
    return gm


def _drop_assertions(gm: fx.GraphModule) -> None:
    for node in reversed(list(gm.graph.nodes)):
        is_guard = node.op == "call_module" and node.target == "_guards_fn"
        if (is_guard or op_name(node) in _ASSERTIONS) and not node.users:
            gm.graph.erase_node(node)


def _drop_calls(gm: fx.GraphModule, targets: Collection[Any]) -> None:
    """Replace the results of calls to ``targets`` by their first operands."""
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and node.target in targets:
            original: Any = node.args[0]
            node.replace_all_uses_with(original)
            gm.graph.erase_node(node)


def _split_by_sizes(gm: fx.GraphModule) -> None:
    for node in gm.graph.nodes:
        if op_name(node) not in _SPLITS or "val" not in node.meta:
            continue
        arguments = bind_arguments(node)
        sizes = [piece.shape[arguments["dim"]] for piece in node.meta["val"]]
        if all(isinstance(size, int) for size in sizes):
            node.target = aten.split_with_sizes.default
            node.args, node.kwargs = (arguments["self"], sizes, arguments["dim"]), {}
