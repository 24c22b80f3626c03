"""Fuses each convolution and linear layer with what follows it into one custom op."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from graphprune.embedding_bags import reduce_embeddings
from graphprune.graph import (
    bind_arguments,
    get_attribute,
    graph_info,
    items_read,
    op_name,
    prune_unused_attributes,
    replace_items,
)
from graphprune.node_building import NodeBuilder
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.pass_base import Pass
from graphprune.plain_convolutions import CONVOLUTIONS, is_plain, make_plain
from graphprune.propagation import propagate_fake
from graphprune.recurrent_layers import split_recurrent_layers

aten = torch.ops.aten

_PLAIN_ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "hardswish": "hardswish",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}

_EXTREMA = {aten.max.dim: aten.amax.default, aten.min.dim: aten.amin.default}


@dataclass(frozen=True)
class FuseEpilogues(Pass):
    """Replaces layer, bias, residual addition and activation by ``graphprune::fused_linear`` or ``fused_conv2d``.

    Every convolution and linear layer with constant weights becomes such an op, also one with nothing to fuse.
    Convolutions along one or three axes and transposed ones are written as conv2d first
    (:mod:`graphprune.plain_convolutions`), and recurrent layers as a linear layer and what depends on the step before
    (:mod:`graphprune.recurrent_layers`). Dropout, which does nothing in evaluation, is removed; ``addmm`` with a
    constant matrix counts as a linear layer.
    """

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Fuse; the summary gives the epilogue of each fused layer and the reason for each that was not fused."""
        _remove_dropout(gm)
        _normalise_products(gm)
        _drop_unread_positions(gm)
        reduce_embeddings(gm)
        split_recurrent_layers(gm)
        rewritten = make_plain(gm, lambda node: _activation(node) is not None)
        fused: dict[str, str] = {}
        skipped: dict[str, str] = {}
        for node in list(gm.graph.nodes):
            if op_name(node) not in (*CONVOLUTIONS, "linear"):
                continue
            reason = _obstacle(node)
            if reason is None:
                weight = str(bind_arguments(node)["weight"].target)
                fused[weight] = _fuse(gm, node)
            else:
                skipped[node.name] = reason
        gm.graph.eliminate_dead_code()
        prune_unused_attributes(gm)
        propagate_fake(gm)
        return gm, {"fused": fused, "skipped": skipped, "rewritten": rewritten}


@dataclass
class _Epilogue:
    """A layer and the nodes after it that fuse with it; the fused op takes over the value of the last one."""

    chain: list[fx.Node]
    residual: fx.Node | None = None
    activation: str = "none"
    parts: list[str] = field(default_factory=list)


def _remove_dropout(gm: fx.GraphModule) -> None:
    for node in list(gm.graph.nodes):
        if op_name(node) in ("dropout", "feature_dropout", "alpha_dropout") and not bind_arguments(node)["train"]:
            node.replace_all_uses_with(bind_arguments(node)["input"])
            gm.graph.erase_node(node)


def _normalise_products(gm: fx.GraphModule) -> None:
    """Rewrite ``addmm(bias, x, constant)`` to a linear layer that holds the transposed matrix."""
    for node in list(gm.graph.nodes):
        if op_name(node) != "addmm":
            continue
        bound = bind_arguments(node)
        bias, matrix = bound["self"], bound["mat2"]
        plain = bound["alpha"] == 1 and bound["beta"] == 1
        if not (plain and _is_constant(bias) and _is_constant(matrix) and bias.meta["val"].dim() == 1):
            continue
        path = f"{matrix.target}_transposed"
        value = get_attribute(gm, str(matrix.target)).detach().t().contiguous()
        masks = graph_info(gm).weight_masks
        if str(matrix.target) in masks:
            masks[path] = masks[str(matrix.target)].t().contiguous()
        with gm.graph.inserting_before(node):
            build = NodeBuilder(gm, node)
            linear = build.call(aten.linear.default, bound["mat1"], build.attribute(path, value), bias)
        node.replace_all_uses_with(linear)
        gm.graph.erase_node(node)


def _drop_unread_positions(gm: fx.GraphModule) -> None:
    """Rewrite ``max`` and ``min`` along an axis whose positions nobody reads to ``amax`` and ``amin``."""
    for node in list(gm.graph.nodes):
        if node.target not in _EXTREMA:
            continue
        if items_read(node) != {0}:
            continue
        bound = bind_arguments(node)
        with gm.graph.inserting_before(node):
            build = NodeBuilder(gm, node)
            value = build.call(_EXTREMA[node.target], bound["self"], [bound["dim"]], bound["keepdim"])
        replace_items(node, [value])
        gm.graph.erase_node(node)


def _is_constant(argument: object) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _obstacle(node: fx.Node) -> str | None:
    bound = bind_arguments(node)
    if not _is_constant(bound["weight"]):
        return "its weight is computed in the graph"
    if bound["bias"] is not None and not _is_constant(bound["bias"]):
        return "its bias is computed in the graph"
    dtype = node.meta["val"].dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"dtype {dtype}"
    if op_name(node) != "linear" and not is_plain(node):
        return "its sizes are dynamic"
    return None


def _fuse(gm: fx.GraphModule, node: fx.Node) -> str:
    """Replace ``node`` and its epilogue by one custom op and say what the epilogue is."""
    bound = bind_arguments(node)
    epilogue = _match_epilogue(node)
    last = epilogue.chain[-1]
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    with gm.graph.inserting_before(last):
        arguments: tuple[Any, ...]
        if op_name(node) == "linear":
            arguments = (x, weight, bias, epilogue.residual, epilogue.activation, "dense")
            new = gm.graph.call_function(FUSED_LINEAR, arguments)
        else:
            padding = [0, 0] if bound["padding"] == "valid" else _pair(bound["padding"])
            geometry = (_pair(bound["stride"]), padding, _pair(bound["dilation"]), bound["groups"])
            arguments = (x, weight, bias, epilogue.residual, *geometry, epilogue.activation, "dense")
            new = gm.graph.call_function(FUSED_CONV2D, arguments)
    new.meta = dict(node.meta) | {"val": last.meta["val"]}
    last.replace_all_uses_with(new)
    for fused in reversed(epilogue.chain):
        gm.graph.erase_node(fused)
    return " + ".join((["bias"] if bias is not None else []) + epilogue.parts) or "nothing to fuse"


def _pair(values: list[Any]) -> list[Any]:
    return list(values) * 2 if len(values) == 1 else list(values)


def _match_epilogue(node: fx.Node) -> _Epilogue:
    epilogue = _Epilogue([node])
    user = _only_user(node)
    if user is not None:
        residual = _residual(node, user)
        if residual is not None:
            epilogue.residual = residual
            epilogue.chain.append(user)
            epilogue.parts.append("residual")
            user = _only_user(user)
    activation = None if user is None else _activation(user)
    if activation is not None and user is not None:
        epilogue.activation = activation
        epilogue.chain.append(user)
        epilogue.parts.append(activation)
    return epilogue


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _residual(node: fx.Node, user: fx.Node) -> fx.Node | None:
    """Return the other operand if ``user`` adds a tensor of the same shape and dtype to ``node``."""
    if user.target not in (aten.add.Tensor, aten.add_.Tensor) or bind_arguments(user)["alpha"] != 1:
        return None
    left, right = user.args[:2]
    other = right if left is node else left
    if not isinstance(other, fx.Node) or other is node or other.op == "get_attr":
        return None
    expected, got = node.meta["val"], other.meta.get("val")
    if not isinstance(got, torch.Tensor) or got.shape != expected.shape or got.dtype != expected.dtype:
        return None
    return None if _comes_later(node, other) else other


def _comes_later(node: fx.Node, other: fx.Node) -> bool:
    """Say whether ``other`` is itself a layer after ``node``, which then takes the addition into its own epilogue."""
    if op_name(other) not in ("conv2d", "linear") or _obstacle(other) is not None or len(other.users) != 1:
        return False
    return node < other


def _activation(node: fx.Node) -> str | None:
    name = op_name(node).removesuffix("_")
    bound = bind_arguments(node)
    if name in _PLAIN_ACTIVATIONS:
        return _PLAIN_ACTIVATIONS[name]
    if name == "gelu":
        return "gelu_tanh" if bound["approximate"] == "tanh" else "gelu"
    if name == "hardtanh" and (bound["min_val"], bound["max_val"]) == (0, 6):
        return "relu6"
    if name == "clamp" and (bound["min"], bound["max"]) == (0, 6):
        return "relu6"
    return None
