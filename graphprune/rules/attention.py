"""Scaled dot-product attention."""

from __future__ import annotations

import math

from torch import fx

from graphprune.axes import Axis, exact_quotient, product, size_of
from graphprune.rules.context import Inference, Resizing, Typed
from graphprune.rules.registry import Arguments, resize, rule


@rule("scaled_dot_product_attention")
def attention(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... h q d, ... h S d, ... h S v -> ... h q v (keys are pinned; grouped queries: h = (kv r))"""
    query, key, value = (context.axes(arguments[name]) for name in ("query", "key", "value"))
    context.unify(query[-1], key[-1])
    context.unify(key[-2], value[-2])
    context.pin(key[-2], "softmax runs along the keys")
    if arguments.get("is_causal"):
        context.pin(query[-2], "causal mask by position")
    batch = _batch(context, arguments, query, key, value)
    context.role("head_dim", [query[-1], value[-1]])
    if arguments["attn_mask"] is not None:
        scores = [*batch, query[-2], key[-2]]
        context.broadcast([scores, context.axes(arguments["attn_mask"])], len(scores))
    return [*batch, query[-2], value[-1]]


def _batch(
    context: Inference, arguments: Arguments, query: list[Axis], key: list[Axis], value: list[Axis]
) -> list[Axis]:
    """Unify batch and head axes; with grouped queries each key head serves a run of query heads."""
    if not arguments.get("enable_gqa") or size_of(query[-3]) == size_of(key[-3]):
        batch = context.broadcast([query[:-2], key[:-2], value[:-2]], len(query) - 2)
        context.role("head", batch)
        return batch
    context.unify(key[-3], value[-3])
    repeats = exact_quotient(size_of(query[-3]), size_of(key[-3]))
    assert repeats is not None
    repeated = context.solver.leaf(repeats)
    context.unify(query[-3], product([key[-3], repeated]))
    context.role("head", [key[-3]])
    context.role("query_head", [repeated])
    outer = context.broadcast([query[:-3], key[:-3], value[:-3]], len(query) - 3)
    return [*outer, query[-3]]


@resize("scaled_dot_product_attention")
def resize_attention(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    """Spell out the old scale: its default follows the head width, which may have shrunk."""
    width = resizing.axes(arguments["query"])[-1]
    if arguments["scale"] is None and resizing.masks.changes(width):
        size = size_of(width)
        assert isinstance(size, int)
        arguments["scale"] = 1 / math.sqrt(size)
