"""Brings a traced graph to one spelling of each thing, so that later code sees few forms.

Cases, in the order they are applied:

- ``wrap_with_set_grad_enabled`` and ``wrap_with_autocast`` regions are inlined;
- assertion and guard nodes are dropped (the shape checks they make are made by graphprune itself);
- in-place ops become their functional twins where the mutated value is an intermediate;
- aliases (``alias``, ``detach``, ``lift_fresh_copy``, ``contiguous`` that changes nothing) are dropped;
- dead nodes are removed.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from graphprune.functionalize import functionalize
from graphprune.graph import op_name

aten = torch.ops.aten

_REGIONS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
_ASSERTIONS = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range"}
_ASSERTIONS |= {"sym_constrain_range_for_size"}
_ALIASES = {aten.alias.default, aten.detach.default, aten.detach_.default, aten.lift_fresh_copy.default}


def canonicalize(gm: fx.GraphModule) -> fx.GraphModule:
    """Rewrite ``gm`` in place into canonical form and return it; values and ``meta`` stay as they were."""
    _inline_regions(gm)
    _drop_assertions(gm)
    functionalize(gm)
    _drop_aliases(gm)
    gm.graph.eliminate_dead_code()
    gm.delete_all_unused_submodules()
    gm.graph.lint()
    gm.recompile()
    return gm


def _inline_regions(gm: fx.GraphModule) -> None:
    for node in list(gm.graph.nodes):
        if op_name(node) in _REGIONS:
            _inline_region(gm, node)


def _inline_region(gm: fx.GraphModule, node: fx.Node) -> None:
    position, body = next(
        (i, argument)
        for i, argument in enumerate(node.args)
        if isinstance(argument, fx.Node)
        and argument.op == "get_attr"
        and isinstance(gm.get_submodule(str(argument.target)), fx.GraphModule)
    )
    inner = gm.get_submodule(str(body.target))
    assert isinstance(inner, fx.GraphModule)
    _inline_regions(inner)
    operands = iter(node.args[position + 1 :])
    copies: dict[fx.Node, fx.Node] = {}
    results: object = None
    with gm.graph.inserting_before(node):
        for original in inner.graph.nodes:
            if original.op == "placeholder":
                operand = next(operands)
                assert isinstance(operand, fx.Node)
                copies[original] = operand
            elif original.op == "output":
                results = fx.map_arg(original.args[0], lambda n: copies[n])
            else:
                copies[original] = gm.graph.node_copy(original, lambda n: copies[n])
    assert isinstance(results, (tuple, list, fx.Node))
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(results[user.args[1]])  # pyright: ignore
            gm.graph.erase_node(user)
    if node.users:
        assert isinstance(results, fx.Node)
        node.replace_all_uses_with(results)
    gm.graph.erase_node(node)
    if not body.users:
        gm.graph.erase_node(body)


def _drop_assertions(gm: fx.GraphModule) -> None:
    for node in reversed(list(gm.graph.nodes)):
        is_guard = node.op == "call_module" and node.target == "_guards_fn"
        if (is_guard or op_name(node) in _ASSERTIONS) and not node.users:
            gm.graph.erase_node(node)


def _drop_aliases(gm: fx.GraphModule) -> None:
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and node.target in _ALIASES and isinstance(node.args[0], fx.Node):
            if node.args[0].op == "get_attr" and node.target is aten.lift_fresh_copy.default:
                pass  # a lifted constant is read only once canonical, so the copy is as good as the constant
            node.replace_all_uses_with(node.args[0])
            gm.graph.erase_node(node)
