"""Writes the casts that ``torch.autocast`` makes behind the scenes into the graph, where they can be seen and kept.

torch.export records that a region runs under autocast and the dtypes that come out, but not the casts. No list of
autocast's ops is needed to recover them: where an op, called plainly, gives another dtype than was recorded, autocast
must have cast its floating inputs to the recorded one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from graphprune.canonicalize.functionalize import fake_call
from graphprune.errors import TraceError
from graphprune.graph import op_name

_REGION = "wrap_with_autocast"
_HINT = "trace the model without autocast, cast to the precision you want"
_CONTRACTIONS = {"linear", "matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "addbmm", "scaled_dot_product_attention"}
_MARKERS = ("_enter_autocast", "_exit_autocast")


def uses_autocast(gm: fx.GraphModule) -> bool:
    """Say whether some region of the graph, at any depth, runs under an enabled autocast."""
    graphs = [module.graph for module in gm.modules() if isinstance(module, fx.GraphModule)]
    nodes = [node for graph in graphs for node in graph.nodes]
    return any(op_name(node) in (_REGION, "_enter_autocast") and node.args[2] is True for node in nodes)


def drop_autocast_markers(gm: fx.GraphModule) -> None:
    """Erase the nodes that enter and leave autocast."""
    for node in reversed(list(gm.graph.nodes)):
        if op_name(node) in _MARKERS:
            gm.graph.erase_node(node)


def write_casts(gm: fx.GraphModule) -> None:
    """Insert the casts that make every op give its recorded dtype without autocast.

    Raises:
        TraceError: if casting an op's inputs does not explain its dtype.
    """
    for node in list(gm.graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if "val" not in node.meta:
            raise TraceError("an op under autocast has no recorded dtype", node=node, hint=_HINT)
        wanted = _floating_dtype(node.meta["val"])
        if wanted is None or _plain_dtype(gm, node) == wanted:
            continue
        for operand in node.all_input_nodes:
            if _floating_dtype(_value(gm, operand)) not in (None, wanted):
                node.replace_input_with(operand, _cast(gm, operand, wanted, node))
        if _plain_dtype(gm, node) != wanted:
            raise TraceError(
                f"cannot tell which casts autocast made to get {wanted}",
                node=node,
                hint=_HINT,
            )


def _plain_dtype(gm: fx.GraphModule, node: fx.Node) -> torch.dtype | None:
    """Return the dtype that ``node`` gives without autocast, or None if it cannot run."""
    dtypes = {_floating_dtype(_value(gm, operand)) for operand in node.all_input_nodes} - {None}
    if len(dtypes) > 1 and _is_contraction(node):
        return None  # fake tensors do not mind, real ones do
    try:
        return _floating_dtype(fake_call(gm, node.target, node.args, node.kwargs))
    except RuntimeError:  # operands of different dtypes
        return None


def _is_contraction(node: fx.Node) -> bool:
    return op_name(node) in _CONTRACTIONS or op_name(node).startswith("conv")


def _floating_dtype(value: Any) -> torch.dtype | None:
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return tensors[0].dtype if tensors and tensors[0].is_floating_point() else None


def _value(gm: fx.GraphModule, node: fx.Node) -> Any:
    return fake_call(gm, lambda value: value, (node,), {})


def _cast(gm: fx.GraphModule, operand: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
    with gm.graph.inserting_before(reader):
        cast = gm.graph.call_function(torch.ops.aten.to.dtype, (operand, dtype))
    cast.meta = {key: reader.meta[key] for key in ("stack_trace", "nn_module_stack") if key in reader.meta}
    cast.meta["val"] = fake_call(gm, cast.target, cast.args, {})
    return cast
