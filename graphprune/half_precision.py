"""Lets a graph in half precision compute in float32, as a CPU without half-precision arithmetic does best.

Inputs and outputs keep their dtypes. In between nothing is rounded to half precision, and nothing overflows in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_map_only

from graphprune.graph import bind_arguments, copy_graph_module, get_attribute, op_name, set_attribute
from graphprune.propagation import propagate_fake

aten = torch.ops.aten

_HALVES = (torch.float16, torch.bfloat16)


def computed_in_float32(gm: fx.GraphModule) -> fx.GraphModule:
    """Return ``gm``, or a copy that computes in float32 what ``gm`` computes in float16 or bfloat16.

    A graph that looks at the bits of a value, ``x.view(torch.int16)``, stays as it is.
    """
    if not any(_is_half(node) for node in gm.graph.nodes) or any(map(_reads_bits, gm.graph.nodes)):
        return gm
    gm = copy_graph_module(gm)
    dtypes = {node: _dtype(node) for node in gm.graph.nodes}
    inputs = [node for node in gm.graph.nodes if node.op == "placeholder"]
    for node in gm.graph.nodes:
        if node.op == "get_attr" and dtypes[node] in _HALVES:
            _widen_attribute(gm, str(node.target))
        elif node.op == "call_function":
            node.args, node.kwargs = tree_map_only(torch.dtype, _widened, (node.args, node.kwargs))
    for node in inputs:
        if dtypes[node] in _HALVES and node.users:
            users = list(node.users)
            with gm.graph.inserting_after(inputs[-1]):
                wide = gm.graph.call_function(aten.to.dtype, (node, torch.float32))
            for user in users:
                user.replace_input_with(node, wide)
    (output,) = (node for node in gm.graph.nodes if node.op == "output")
    with gm.graph.inserting_before(output):
        output.args = fx.map_arg(output.args, lambda node: _narrowed(gm, node, _original(node, dtypes)))
    propagate_fake(gm)
    gm.recompile()
    return gm


def _dtype(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)


def _is_half(node: fx.Node) -> bool:
    values = node.meta.get("val")
    values = values if isinstance(values, (tuple, list)) else [values]
    return any(getattr(value, "dtype", None) in _HALVES for value in values)


def _reads_bits(node: fx.Node) -> bool:
    return op_name(node) == "view" and isinstance(bind_arguments(node).get("dtype"), torch.dtype)


def _widened(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _HALVES else dtype


def _widen_attribute(gm: fx.GraphModule, path: str) -> None:
    value = get_attribute(gm, path)
    if value.dtype not in _HALVES:  # done, under the same name
        return
    wide = value.detach().float()
    set_attribute(gm, path, torch.nn.Parameter(wide, False) if isinstance(value, torch.nn.Parameter) else wide)


def _original(node: fx.Node, dtypes: dict[fx.Node, torch.dtype | None]) -> torch.dtype | None:
    """Return the dtype that the node's value had; a node that is new casts an input."""
    return dtypes[node] if node in dtypes else dtypes[node.all_input_nodes[0]]


def _narrowed(gm: fx.GraphModule, node: fx.Node, dtype: torch.dtype | None) -> Any:
    return gm.graph.call_function(aten.to.dtype, (node, dtype)) if dtype in _HALVES else node
