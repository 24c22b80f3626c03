"""Rewrites bags of equal size, looked up in a table and reduced, as an embedding and a reduction."""

from __future__ import annotations

import torch
from torch import fx

from graphprune.graph import bind_arguments, get_attribute, items_read, op_name, replace_items
from graphprune.node_building import NodeBuilder
from graphprune.propagation import is_symbolic

aten = torch.ops.aten

_SUM, _MEAN, _MAX = range(3)  # torch's numbers of the modes


def reduce_embeddings(gm: fx.GraphModule) -> None:
    """Rewrite, in place, every ``embedding_bag`` whose constant offsets cut its indices into bags of equal size."""
    for node in list(gm.graph.nodes):
        if op_name(node) != "embedding_bag":
            continue
        size = _bag_size(gm, node)
        if size is None or items_read(node) != {0}:
            continue
        with gm.graph.inserting_before(node):
            result = _reduced(NodeBuilder(gm, node), node, size)
        replace_items(node, [result])
        gm.graph.erase_node(node)


def _bag_size(gm: fx.GraphModule, node: fx.Node) -> int | None:
    """Return how many indices each bag has; None if that is not one number, or if this op is left alone."""
    bound = bind_arguments(node)
    offsets, indices = bound["offsets"], bound["indices"].meta["val"]
    if offsets.op != "get_attr" or is_symbolic(indices) or indices.dim() != 1:
        return None
    if bound.get("padding_idx") is not None and bound["mode"] == _MAX:
        return None
    starts = get_attribute(gm, str(offsets.target))
    starts = starts[:-1] if bound["include_last_offset"] else starts
    bags = len(starts)
    if bags == 0 or len(indices) % bags or len(indices) == 0:
        return None
    size = len(indices) // bags
    return size if torch.equal(starts, torch.arange(bags, dtype=starts.dtype) * size) else None


def _reduced(build: NodeBuilder, node: fx.Node, size: int) -> fx.Node:
    bound = bind_arguments(node)
    mode, padding = bound["mode"], bound.get("padding_idx")
    indices = build.call(aten.reshape.default, bound["indices"], [-1, size])
    rows = build.call(aten.embedding.default, bound["weight"], indices)
    if mode == _MAX:
        return build.call(aten.amax.default, rows, [1])
    counts = None
    if padding is not None:
        kept = build.call(aten.ne.Scalar, indices, padding % bound["weight"].meta["val"].shape[0])
        kept = build.call(aten.to.dtype, kept, rows.meta["val"].dtype)
        rows = build.call(aten.mul.Tensor, rows, build.call(aten.unsqueeze.default, kept, -1))
        counts = build.call(aten.clamp.default, build.call(aten.sum.dim_IntList, kept, [1], True), 1)
    if bound["per_sample_weights"] is not None:
        weights = build.call(aten.reshape.default, bound["per_sample_weights"], [-1, size, 1])
        rows = build.call(aten.mul.Tensor, rows, weights)
    if mode == _MEAN and counts is None:
        return build.call(aten.mean.dim, rows, [1])
    total = build.call(aten.sum.dim_IntList, rows, [1])
    return total if mode == _SUM or counts is None else build.call(aten.div.Tensor, total, counts)
