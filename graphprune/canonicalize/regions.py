"""Inlines the sub-graphs in which torch.export keeps code run under ``no_grad``, ``enable_grad`` or ``autocast``."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.graph import get_attribute, op_name, replace_items, set_attribute

_REGIONS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}


def inline_regions(gm: fx.GraphModule) -> None:
    """Replace each region's call by the region's nodes; the context it ran under is dropped."""
    for node in list(gm.graph.nodes):
        if op_name(node) in _REGIONS:
            _inline(gm, node)


def _inline(gm: fx.GraphModule, node: fx.Node) -> None:
    arguments: list[Any] = list(node.args)
    position = next(i for i, argument in enumerate(arguments) if _is_body(gm, argument))
    body = arguments[position]
    inner = get_attribute(gm, str(body.target))
    inline_regions(inner)
    operands = iter(arguments[position + 1 :])
    copies: dict[fx.Node, Any] = {}
    results: Any = None
    with gm.graph.inserting_before(node):
        for original in inner.graph.nodes:
            if original.op == "placeholder":
                copies[original] = next(operands)
            elif original.op == "output":
                results = fx.map_arg(original.args[0], copies.__getitem__)
            else:
                copies[original] = gm.graph.node_copy(original, copies.__getitem__)
                if original.op == "get_attr":
                    copies[original].target = _adopt(gm, inner, f"{body.target}.{original.target}", original)
    _replace_results(gm, node, results)
    gm.graph.erase_node(node)
    if not body.users:
        gm.graph.erase_node(body)


def _is_body(gm: fx.GraphModule, argument: Any) -> bool:
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return False
    return isinstance(get_attribute(gm, str(argument.target)), fx.GraphModule)


def _adopt(gm: fx.GraphModule, inner: fx.GraphModule, path: str, original: fx.Node) -> str:
    """Give ``gm`` the tensor or sub-graph that a node of ``inner`` reads, under a name of its own; return the name."""
    name = path.replace(".", "_")
    value = get_attribute(inner, str(original.target))
    if isinstance(value, fx.GraphModule):
        gm.add_module(name, value)
    else:
        set_attribute(gm, name, value)
    return name


def _replace_results(gm: fx.GraphModule, node: fx.Node, results: Any) -> None:
    replace_items(node, results)
    if node.users:
        node.replace_all_uses_with(results)
