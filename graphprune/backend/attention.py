"""Lowers attention and products of two activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape, sum_in_float32
from graphprune.backend.rows import added_mask, emit_softmax, shape_of_mask
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels import Kernel


def lower_product(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``matmul``, ``bmm`` and ``mm``."""
    left, right = node.args[:2]
    assert isinstance(left, fx.Node) and isinstance(right, fx.Node)
    shapes = static_shape(left), static_shape(right)
    return _product(lowering, node, lowering.value(left), lowering.value(right), *shapes)


def lower_attention(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``scaled_dot_product_attention`` to one kernel, or to two products with a masked softmax between them."""
    bound = bind_arguments(node)
    if bound["dropout_p"]:
        raise BackendError("attention with dropout cannot be compiled", node=node, hint="trace the model in eval mode")
    names = ("query", "key", "value")
    operands = [lowering.value(bound[name]) for name in names]
    shapes = [static_shape(bound[name]) for name in names]
    mask = None if bound["attn_mask"] is None else lowering.value(bound["attn_mask"])
    mask = added_mask(lowering, mask, str(operands[0].ty.dtype))
    scale = 1 / math.sqrt(shapes[0][-1]) if bound["scale"] is None else float(bound["scale"])
    fused = _in_one_kernel(lowering, node, operands, shapes, mask, scale, causal=bool(bound["is_causal"]))
    if fused is not None:
        return fused
    query, key, value = operands
    q_shape, k_shape, v_shape = shapes
    if bound["enable_gqa"]:
        key, k_shape = _repeat_heads(lowering, key, k_shape, q_shape[-3])
        value, v_shape = _repeat_heads(lowering, value, v_shape, q_shape[-3])
    scores = _product(lowering, node, query, key, q_shape, k_shape, transpose_b=True)
    score_shape = (*q_shape[:-1], k_shape[-2])
    weights = emit_softmax(lowering, scores, score_shape, scale=scale, mask=mask, causal=bool(bound["is_causal"]))
    return _product(lowering, node, weights, value, score_shape, v_shape)


def _in_one_kernel(
    lowering: Lowering,
    node: fx.Node,
    operands: Sequence[relax.Expr],
    shapes: Sequence[tuple[int, ...]],
    mask: relax.Expr | None,
    scale: float,
    *,
    causal: bool,
) -> relax.Expr | None:
    """Emit attention as one kernel; return None if there is none: products and softmax then report for themselves."""
    q_shape, k_shape, v_shape = shapes
    if any(str(operand.ty.dtype) != "float32" for operand in operands):
        return None
    try:
        kernel = lowering.backend.attention(
            q_shape, k_shape, v_shape, shape_of_mask(mask), lowering.target, scale=scale, causal=causal
        )
    except BackendError:
        return None
    lowering.report(node, "attention", (*q_shape, *k_shape), kernel.name, note=kernel.note)
    macs = math.prod(q_shape[:-1]) * k_shape[-2] * (q_shape[-1] + v_shape[-1])
    return lowering.call(kernel, [*operands, *([] if mask is None else [mask])], macs=macs)


def _repeat_heads(
    lowering: Lowering, x: relax.Expr, shape: tuple[int, ...], heads: int
) -> tuple[relax.Expr, tuple[int, ...]]:
    """Repeat each key or value head for the query heads that share it."""
    repeated = (*shape[:-3], heads, *shape[-2:])
    return lowering.emit(relax.op.repeat(x, heads // shape[-3], axis=len(shape) - 3)), repeated


def _product(
    lowering: Lowering,
    node: fx.Node,
    left: relax.Expr,
    right: relax.Expr,
    left_shape: tuple[int, ...],
    right_shape: tuple[int, ...],
    *,
    transpose_b: bool = False,
) -> relax.Expr:
    shape = (*left_shape, *right_shape)
    try:
        dtype = str(left.ty.dtype)
        if dtype != "float32":
            raise BackendError(f"dtype {dtype}")
        kernel: Kernel = lowering.backend.matmul(left_shape, right_shape, lowering.target, transpose_b=transpose_b)
    except BackendError as error:
        lowering.report(node, "matmul", shape, "relax", reason=f"no kernel: {error.message}")
        if transpose_b:
            axes = [*range(len(right_shape) - 2), len(right_shape) - 1, len(right_shape) - 2]
            right = lowering.emit(relax.op.permute_dims(right, axes))
        return lowering.emit(
            sum_in_float32(lowering, left, lambda dtype: relax.op.matmul(left, right, out_dtype=dtype))
        )
    lowering.report(node, "matmul", shape, kernel.name, note=kernel.note)
    return lowering.call(kernel, [left, right], macs=math.prod(kernel.output_shape) * left_shape[-1])
