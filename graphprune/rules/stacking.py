"""Ops that join tensors along an axis which the op's name implies: horizontal, vertical and depth stacks, blocks."""

from __future__ import annotations

from torch import fx

from graphprune.graph import op_name
from graphprune.rules.context import Inference, Typed
from graphprune.rules.registry import Arguments, rule


@rule("hstack", "vstack", "row_stack", "dstack", "column_stack")
def stack_along(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n a, n b -> n (a + b) (the axis is implied; vectors get axes of size 1)"""
    value = node.meta["val"]
    rank, along = len(value.shape), {"hstack": 1, "column_stack": 1, "dstack": 2}.get(op_name(node), 0)
    d = min(along, rank - 1)
    tensors = []
    for tensor in arguments["tensors"]:
        axes = context.axes(tensor)
        unit = context.solver.leaf(1)
        if len(axes) < rank:  # vectors become columns, or else rows; matrices get a depth
            axes = [*axes, unit] if op_name(node) == "column_stack" or len(axes) == 2 else [unit, *axes]
        tensors.append([*axes, *[context.solver.leaf(1)] * (rank - len(axes))])
    first, *others = tensors
    for axes in others:
        for i, (a, b) in enumerate(zip(first, axes, strict=True)):
            if i != d:
                context.unify(a, b)
    return [*first[:d], context.concatenate(axes[d] for axes in tensors), *first[d + 1 :]]


@rule("block_diag")
def block_diagonal(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """a b, c d, ... -> (a + c + ...) (b + d + ...)"""
    blocks = [context.axes(tensor) for tensor in arguments["tensors"]]
    blocks = [[context.solver.leaf(1)] * (2 - len(axes)) + axes for axes in blocks]
    return [context.concatenate(axes[d] for axes in blocks) for d in (0, 1)]
