"""Normalisations. Statistics over an axis that may shrink are recorded: the smaller model renormalises."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.nn import functional

from graphprune.axes import product
from graphprune.rules.context import Inference, MaskedInputs, Resizing, Typed
from graphprune.rules.registry import Arguments, masked, resize, rule


@rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
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
        return [axes, *(context.fresh(value) for value in node.meta["val"][1:])]
    return axes


def _uses_input_statistics(arguments: Arguments) -> bool:
    return bool(arguments.get("training") or arguments.get("use_input_stats") or arguments.get("running_mean") is None)


@masked("batch_norm", "instance_norm")
def masked_batch_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    assert callable(node.target)
    names = ("input", "weight", "bias", "running_mean", "running_var")
    return node.target(*(inputs.kept(value) if name in names else value for name, value in arguments.items()))


@rule("layer_norm", "rms_norm")
def layer_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... c, c, c -> ... c (statistic over c)"""
    axes = context.axes(arguments["input"])
    rank = len(arguments["normalized_shape"])
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            for a, b in zip(context.axes(arguments[name]), axes[-rank:], strict=True):
                context.unify(a, b)
    context.statistic(node, axes[-rank:])
    return axes


@resize("layer_norm", "rms_norm")
def resize_layer_norm(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    sizes = arguments["normalized_shape"]
    arguments["normalized_shape"] = resizing.counts(sizes, resizing.axes(node)[-len(sizes) :])


@masked("layer_norm")
def masked_layer_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    x, weight, bias = (inputs.kept(arguments[name]) for name in ("input", "weight", "bias"))
    assert x is not None
    shape = x.shape[-len(arguments["normalized_shape"]) :]
    return functional.layer_norm(x, list(shape), weight, bias, arguments["eps"])


@masked("rms_norm")
def masked_rms_norm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    x, weight = inputs.kept(arguments["input"]), inputs.kept(arguments["weight"])
    assert x is not None
    shape = x.shape[-len(arguments["normalized_shape"]) :]
    return functional.rms_norm(x, list(shape), weight, arguments["eps"])


@rule("group_norm")
def group_norm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g c) ..., (g c), (g c) -> n (g c) ... (statistic over c)"""
    axes, groups = context.axes(arguments["input"]), arguments["num_groups"]
    for name in ("weight", "bias"):
        if arguments.get(name) is not None:
            context.unify(axes[1], context.axes(arguments[name])[0])
    inner = axes[1]
    if groups > 1:
        size = node.meta["val"].shape[1]
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


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "_safe_softmax")
def softmax(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S ... (the axis it runs along is pinned)"""
    axes = context.axes(arguments["self"])
    context.pin(axes[arguments["dim"]], f"{rule_label(node)} runs along it")
    return axes


def rule_label(node: fx.Node) -> str:
    """Return the op's short name for messages."""
    return str(node.target).removeprefix("aten.").split(".")[0]
