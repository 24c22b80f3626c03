"""Rows that are added up or written by index: embedding bags, index_add and relatives."""

from __future__ import annotations

from torch import fx

from graphprune.axes import size_of
from graphprune.rules.context import Inference, Typed, tensor_nodes
from graphprune.rules.registry import Arguments, rule

WRITTEN = "written to by index"


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """V c, I, B -> B c (the vocabulary, indices and bags are pinned)"""
    vocabulary, width = context.axes(arguments["weight"])
    context.pin(vocabulary, "looked up by value")
    for operand in tensor_nodes(arguments.values()):
        if operand is not arguments["weight"]:
            context.pin_all(context.axes(operand), "gathered into bags")
    typed = [context.constant(value, "gathered into bags") for value in node.meta["val"]]
    for axes in typed:
        if len(axes) == 2 and size_of(axes[1]) == size_of(width):
            axes[1] = width
    return typed


@rule("index_add")
def index_add(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ..., i, ... i ... -> ... S ... (the axis added to is pinned, the others are shared)"""
    axes, source = context.axes(arguments["self"]), context.axes(arguments["source"])
    index = context.axes(arguments["index"])
    if not axes or not source:
        context.pin_all([*axes, *source, *index], WRITTEN)
        return axes
    d = arguments["dim"] % len(axes)
    context.pin(axes[d], WRITTEN)
    if index:
        context.unify(source[d], index[0])
    for i, (a, b) in enumerate(zip(axes, source, strict=True)):
        if i != d:
            context.unify(a, b)
    return axes


@rule("index_copy", "index_reduce", "index_fill")
def index_write(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ..., I, ... I ... -> ... S ... (the axis written to and what is written along it are pinned)"""
    axes = context.axes(arguments["self"])
    context.pin_all(context.axes(arguments["index"]), WRITTEN)
    d = arguments["dim"] % len(axes) if axes else 0
    context.pin_all(axes[d : d + 1], WRITTEN)
    source = arguments.get("source")
    if isinstance(source, fx.Node):
        for i, (a, b) in enumerate(zip(axes, context.axes(source), strict=False)):
            if i == d:
                context.pin(b, WRITTEN)
            else:
                context.unify(a, b)
    return axes
