"""Scaled dot-product attention."""

from __future__ import annotations

import math

import torch
from torch import fx

from graphprune.axes import Axis, exact_quotient, product, size_of
from graphprune.rules.context import Inference, Resizing, Typed, shape_of
from graphprune.rules.registry import Arguments, resize, rule

KERNELS = """
_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
""".split()


_EQUAL_WIDTHS = {getattr(torch.ops.aten, name).default for name in KERNELS if "math" not in name}
"""Kernels whose results are as wide as the queries: values must be, too."""


@rule("scaled_dot_product_attention", *KERNELS)
def attention(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... h q d, ... h S d, ... h S v -> ... h q v (keys are pinned; grouped queries: h = (kv r))"""
    query, key, value = (context.axes(arguments[name]) for name in ("query", "key", "value"))
    context.unify(query[-1], key[-1])
    if node.target in _EQUAL_WIDTHS:
        context.unify(query[-1], value[-1])
    context.unify(key[-2], value[-2])
    context.pin(key[-2], "softmax runs along the keys")
    if arguments.get("is_causal"):
        context.pin(query[-2], "causal mask by position")
    batch = _batch(context, arguments, query, key, value)
    context.role("head_dim", [query[-1], value[-1]])
    bias = arguments.get("attn_mask") or arguments.get("attn_bias")
    if bias is not None:
        scores = [*batch, query[-2], key[-2]]
        context.broadcast([scores, context.axes(bias)], len(scores))
    result = [*batch, query[-2], value[-1]]
    return _with_saved(context, node, result, key[-2]) if isinstance(node.meta["val"], (tuple, list)) else result


def _with_saved(context: Inference, node: fx.Node, result: list[Axis], keys: Axis) -> Typed:
    """Add the types of what kernels save: sums or scores that follow batch and queries, and random states."""
    rows = result[:-1]
    kinds = {tuple(map(size_of, axes)): axes for axes in ([*rows, keys], rows)}
    typed: list[list[Axis]] = [result]
    for value in node.meta["val"][1:]:
        shape = tuple(shape_of(value)) if isinstance(value, torch.Tensor) else ()
        known = kinds.get(shape) if shape else None
        typed.append(known or (context.constant(value, "state of an attention kernel") if shape else []))
    return typed


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


@resize("scaled_dot_product_attention", *KERNELS)
def resize_attention(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    """Spell out the old scale: its default follows the head width, which may have shrunk."""
    width = resizing.axes(arguments["query"])[-1]
    if arguments["scale"] is None and resizing.masks.changes(width):
        size = size_of(width)
        assert isinstance(size, int)
        arguments["scale"] = 1 / math.sqrt(size)
