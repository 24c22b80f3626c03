"""Normalisations. Statistics over an axis that may shrink are recorded: the smaller model renormalises."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.nn import functional

from graphprune.axes import Axis, pin_of, product, size_of
from graphprune.rules.context import Inference, MaskedInputs, Resizing, Typed, shape_of, tensors_of
from graphprune.rules.registry import Arguments, masked, resize, rule

BATCH_NORMS = """
batch_norm instance_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
_batch_norm_impl_index
""".split()


@rule(*BATCH_NORMS)
def batch_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c ..., c, c, c, c -> n c ..."""
    axes = context.axes(arguments["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if arguments.get(name) is not None:
            context.unify(axes[1], context.axes(arguments[name])[0])
    if _uses_input_statistics(arguments):
        per_sample = "use_input_stats" in arguments
        context.statistic(node, axes[2:] if per_sample else [axes[0], *axes[2:]])
    if isinstance(node.meta["val"], (tuple, list)):
        return [axes, *(_saved(context, axes[1], value) for value in node.meta["val"][1:])]
    return axes


def _saved(context: Inference, channels: Axis, value: Any) -> list[Axis]:
    """Return the axes of a statistic kept for the backward pass: one number for each channel, or nothing."""
    if not isinstance(value, torch.Tensor):
        return []
    return [channels] if shape_of(value) == [size_of(channels)] else context.constant(value, "saved statistics")


def _uses_input_statistics(arguments: Arguments) -> bool:
    return bool(arguments.get("training") or arguments.get("use_input_stats") or arguments.get("running_mean") is None)


@masked(*BATCH_NORMS)
def masked_batch_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    return inputs.call(node)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... c, c, c -> ... c (statistic over c)"""
    axes = context.axes(arguments["input"])
    rank = len(arguments["normalized_shape"])
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            for a, b in zip(context.axes(arguments[name]), axes[-rank:], strict=True):
                context.unify(a, b)
    context.statistic(node, axes[-rank:])
    if isinstance(node.meta["val"], (tuple, list)):
        saved = [*axes[:-rank], *(context.solver.leaf(1) for _ in range(rank))]
        return [axes, *(saved for _ in node.meta["val"][1:])]
    return axes


@resize("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def resize_layer_norm(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    sizes = arguments["normalized_shape"]
    arguments["normalized_shape"] = resizing.counts(sizes, resizing.axes(arguments["input"])[-len(sizes) :])


@masked("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def masked_layer_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    x = inputs.kept(arguments["input"])
    assert x is not None and callable(node.target)
    shape = list(x.shape[-len(arguments["normalized_shape"]) :])
    options = {name: inputs.kept(arguments[name]) for name in ("weight", "bias") if name in arguments}
    return node.target(x, shape, **options, eps=arguments["eps"])


@rule("native_group_norm")
def native_group_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g c) ..., (g c), (g c) -> n (g c) ..., n g, n g (statistic over c)"""
    (axes,) = tensors_of(group_norm(context, node, arguments | {"num_groups": arguments["group"]}))
    group = context.notes.get(node.name, context.solver.leaf(1))
    return [axes, *([axes[0], group] for _ in node.meta["val"][1:])]


@resize("native_group_norm")
def resize_native_group_norm(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    batch, channels, *space = resizing.axes(arguments["input"])
    arguments["N"] = resizing.resized(arguments["N"], batch)
    arguments["C"] = resizing.resized(arguments["C"], channels)
    arguments["HxW"] = resizing.resized(arguments["HxW"], product(space))
    if node.name in resizing.notes:
        arguments["group"] = resizing.count(resizing.notes[node.name])


@rule("group_norm")
def group_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g c) ..., (g c), (g c) -> n (g c) ... (statistic over c)"""
    axes, groups = context.axes(arguments["input"]), arguments["num_groups"]
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            context.unify(axes[1], context.axes(arguments[name])[0])
    inner = axes[1]
    if groups > 1:
        size = arguments["input"].meta["val"].shape[1]
        group, inner = context.solver.leaf(groups), context.solver.leaf(size // groups)
        context.unify(axes[1], product([group, inner]))
        context.notes[node.name] = group
    context.statistic(node, [inner, *axes[2:]])
    return axes


@resize("group_norm")
def resize_group_norm(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    if node.name in resizing.notes:
        arguments["num_groups"] = resizing.count(resizing.notes[node.name])


@masked("group_norm")
def masked_group_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    x, weight, bias = (inputs.kept(arguments[name]) for name in ("input", "weight", "bias"))
    assert isinstance(x, torch.Tensor)
    groups = inputs.count(inputs.notes[node.name]) if node.name in inputs.notes else 1
    return functional.group_norm(x, groups, weight, bias, arguments["eps"])


@masked("native_group_norm")
def masked_native_group_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    x, weight, bias = (inputs.kept(arguments[name]) for name in ("input", "weight", "bias"))
    assert isinstance(x, torch.Tensor)
    groups = inputs.count(inputs.notes[node.name]) if node.name in inputs.notes else 1
    sizes = (x.shape[0], x.shape[1], x.shape[2:].numel())
    return torch.ops.aten.native_group_norm.default(x, weight, bias, *sizes, groups, arguments["eps"])


SOFTMAXES = "softmax _softmax log_softmax _log_softmax special_softmax special_log_softmax _safe_softmax".split()


@rule(*SOFTMAXES)
def softmax(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ... -> ... s ... (statistic over s)"""
    axes = context.axes(arguments["self"])
    axis = axes[arguments["dim"]]
    context.statistic(node, [axis])
    context.role("mixture", [axis])
    return axes


@masked(*SOFTMAXES)
def masked_softmax(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    operand = node.args[0]
    assert isinstance(operand, fx.Node) and callable(node.target)
    return node.target(inputs.kept(operand), *node.args[1:], **node.kwargs)


@rule("cumsum")
def cumulative_sum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (pinned; free where no other axis is: zeros add nothing, nor can blocks be mixed)"""
    axes = context.axes(arguments["self"])
    d = arguments["dim"] % len(axes) if axes else 0
    if any(pin_of(axis) is None for i, axis in enumerate(axes) if i != d):
        context.pin(axes[d], f"{rule_label(node)} runs along it")
    return axes


@rule("cumprod", "logcumsumexp")
def cumulative(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (the axis it runs along is pinned)"""
    axes = context.axes(arguments["self"])
    context.pin(axes[arguments["dim"]], f"{rule_label(node)} runs along it")
    return axes


@rule("cummax", "cummin")
def running_extremum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (the axis it runs along is pinned)"""
    axes = context.axes(arguments["self"])
    context.pin_all(axes[arguments["dim"] :][:1], f"{rule_label(node)} runs along it")
    return [axes, axes]


def rule_label(node: fx.Node) -> str:
    """Return the op's short name for messages."""
    return str(node.target).removeprefix("aten.").split(".")[0]
