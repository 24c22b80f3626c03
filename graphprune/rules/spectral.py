"""Fourier transforms: the transformed axes are pinned, all others pass, whether values are real or complex."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from graphprune.axes import Axis
from graphprune.rules.context import Inference, NewCall, Resizing, Typed, dimensions, shape_of
from graphprune.rules.registry import Arguments, resize, rule

TRANSFORMS = [f"fft_{prefix}fft{rank}" for prefix in ("", "i", "r", "ir", "h", "ih") for rank in ("", "2", "n")]


@rule(*TRANSFORMS, "_fft_r2c", "_fft_c2r", "_fft_c2c", "fft_fftshift", "fft_ifftshift")
def fourier(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S' ... (transformed axes are pinned)"""
    axes = context.axes(arguments["self"])
    reason = "transformed to frequencies"
    sizes = shape_of(node.meta["val"])
    for d in _transformed(arguments, len(axes)):
        context.pin(axes[d], reason)
        axes[d] = context.solver.pinned(sizes[d], reason)
    return axes


def _transformed(arguments: Arguments, rank: int) -> list[int]:
    dim, lengths = arguments.get("dim"), arguments.get("s")
    if dim is None and lengths is not None:
        return list(range(rank - len(lengths), rank))
    return dimensions(dim, rank)


@rule("stft")
def short_time(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n S, W -> n F T (time and window are pinned)"""
    return _transform_last(context, node, arguments, 1)


@rule("istft")
def inverse_short_time(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n F T, W -> n S (frequencies, time and window are pinned)"""
    return _transform_last(context, node, arguments, 2)


def _transform_last(context: Inference, node: fx.Node, arguments: Arguments, rank: int) -> list[Axis]:
    reason = "transformed to frequencies"
    axes = context.axes(arguments["self"])
    window: Any = arguments["window"]
    if window is not None:
        context.pin_all(context.axes(window), reason)
    context.pin_all(axes[-rank:], reason)
    batch = axes[:-rank]
    return [*batch, *(context.solver.pinned(size, reason) for size in shape_of(node.meta["val"])[len(batch) :])]


@rule("view_as_real")
def view_as_real(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... -> ... K (real and imaginary parts are pinned)"""
    return [*context.axes(arguments["self"]), context.solver.pinned(2, "real and imaginary parts")]


@rule("view_as_complex")
def view_as_complex(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... K -> ... (real and imaginary parts are pinned)"""
    *axes, parts = context.axes(arguments["self"])
    context.pin(parts, "real and imaginary parts")
    return axes


@resize("view_as_complex")
def resize_view_as_complex(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    """Copy the operand if the memory it lies in shrinks: the op needs even strides, which odd widths would break."""
    operand = arguments["self"]
    if any(map(resizing.changes, _views_up_to(operand))):
        arguments["self"] = NewCall(
            torch.ops.aten.clone.default, (operand,), {"memory_format": torch.contiguous_format}
        )


def _views_up_to(node: fx.Node) -> Iterator[fx.Node]:
    """Yield ``node`` and the nodes whose memory it may share, each a view of the next."""
    yield node
    if node.op != "call_function":
        return
    if node.target is operator.getitem:
        is_view = True
    else:
        schema = getattr(node.target, "_schema", None)
        is_view = schema is not None and bool(schema.arguments) and schema.arguments[0].alias_info is not None
    if is_view and isinstance(node.args[0], fx.Node):
        yield from _views_up_to(node.args[0])
