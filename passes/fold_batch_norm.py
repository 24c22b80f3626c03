"""Folds batch normalisation, in evaluation mode, into the layer beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from graphprune.graph import bind_arguments, get_attribute, graph_info, op_name, prune_unused_attributes, set_attribute
from graphprune.pass_base import Pass
from graphprune.propagation import propagate_fake

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_FOLDABLE = _CONVOLUTIONS | _TRANSPOSED | {"linear"}


class _Affine(NamedTuple):
    """``y = x * scale + shift`` for each channel, in float64."""

    scale: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Replaces each batch norm by new weights of the convolution or linear layer before it, or else after it.

    Folding backwards scales whole rows of the weight, so its zeros and its ``weight_masks`` entry stay as they are.
    Folding forwards is done only where it is exact, into a layer without padding. A batch norm with no such neighbour
    becomes one multiplication and one addition with constants. One that uses the batch's own statistics is left alone.
    """

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Fold what can be folded; the summary gives, for each batch norm, what became of it."""
        outcome: dict[str, str] = {}
        for node in list(gm.graph.nodes):
            if op_name(node) == "batch_norm":
                outcome[node.name] = _fold(gm, node)
        gm.graph.eliminate_dead_code()
        prune_unused_attributes(gm)
        propagate_fake(gm)
        return gm, {"batch_norms": outcome}


def _fold(gm: fx.GraphModule, node: fx.Node) -> str:
    affine = _affine(gm, node)
    if affine is None:
        return "left: uses statistics of the batch, or parameters computed in the graph"
    source = bind_arguments(node)["input"]
    reason = _obstacle_backward(gm, node, source)
    if reason is None:
        _fold_backward(gm, node, source, affine)
        return f"folded into {source.name}"
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is not None and _can_fold_forward(gm, node, user):
        _fold_forward(gm, node, user, affine)
        return f"folded into {user.name}, which follows"
    _replace_by_affine(gm, node, source, affine)
    return f"scale and shift: {reason}"


def _affine(gm: fx.GraphModule, node: fx.Node) -> _Affine | None:
    bound = bind_arguments(node)
    if bound["training"]:
        return None
    values: dict[str, torch.Tensor | None] = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        argument = bound[name]
        if argument is None:
            values[name] = None
        elif isinstance(argument, fx.Node) and argument.op == "get_attr":
            values[name] = get_attribute(gm, str(argument.target)).detach().double()
        else:
            return None
    mean, variance = values["running_mean"], values["running_var"]
    if mean is None or variance is None:
        return None
    scale = (variance + bound["eps"]).rsqrt()
    if values["weight"] is not None:
        scale = scale * values["weight"]
    shift = -mean * scale
    if values["bias"] is not None:
        shift = shift + values["bias"]
    return _Affine(scale, shift)


def _obstacle_backward(gm: fx.GraphModule, node: fx.Node, source: fx.Node) -> str | None:
    """Say why ``node`` cannot fold into the op that makes its input, or None if it can."""
    if op_name(source) not in _FOLDABLE:
        return f"its input comes from {op_name(source) or source.op}"
    if len(source.users) != 1:
        return f"{source.name} has other users"
    if op_name(source) == "linear" and source.meta["val"].dim() != 2:
        return "the linear layer's features are not the batch norm's channels"
    bound = bind_arguments(source)
    if not _is_constant(bound["weight"]) or not (bound["bias"] is None or _is_constant(bound["bias"])):
        return f"the weight of {source.name} is computed in the graph"
    return None


def _is_constant(argument: object) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _fold_backward(gm: fx.GraphModule, node: fx.Node, source: fx.Node, affine: _Affine) -> None:
    bound = bind_arguments(source)
    weight = get_attribute(gm, str(bound["weight"].target))
    scaled = (weight.detach().double() * _row_scale(source, weight, affine.scale)).to(weight.dtype)
    shift = affine.shift
    if bound["bias"] is not None:
        shift = shift + get_attribute(gm, str(bound["bias"].target)).detach().double() * affine.scale
    _replace_parameters(gm, source, scaled, shift.to(weight.dtype))
    node.replace_all_uses_with(source)
    gm.graph.erase_node(node)


def _row_scale(source: fx.Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return ``scale`` shaped to multiply the output channels of the weight."""
    if op_name(source) not in _TRANSPOSED:
        return scale.reshape(-1, *[1] * (weight.dim() - 1))
    groups = bind_arguments(source)["groups"]  # weight is [in, out / groups, ...], input channels in order of groups
    rows = scale.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
    return rows.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))


def _can_fold_forward(gm: fx.GraphModule, node: fx.Node, user: fx.Node) -> bool:
    if op_name(user) not in _CONVOLUTIONS | {"linear"}:
        return False
    bound = bind_arguments(user)
    if bound["input"] is not node or not _is_constant(bound["weight"]):
        return False
    if bound["bias"] is not None and not _is_constant(bound["bias"]):
        return False
    if op_name(user) == "linear":
        return node.meta["val"].dim() == 2
    padding = bound["padding"]
    return padding == "valid" or (not isinstance(padding, str) and all(p == 0 for p in padding))


def _fold_forward(gm: fx.GraphModule, node: fx.Node, user: fx.Node, affine: _Affine) -> None:
    bound = bind_arguments(user)
    weight = get_attribute(gm, str(bound["weight"].target))
    exact = weight.detach().double()
    groups = bound.get("groups", 1)

    def columns(values: torch.Tensor) -> torch.Tensor:  # input channel c of group g is channel g * size + c
        rows = values.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
        return rows.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))

    shift = (exact * columns(affine.shift)).flatten(1).sum(1)
    if bound["bias"] is not None:
        shift = shift + get_attribute(gm, str(bound["bias"].target)).detach().double()
    _replace_parameters(gm, user, (exact * columns(affine.scale)).to(weight.dtype), shift.to(weight.dtype))
    node.replace_all_uses_with(bind_arguments(node)["input"])
    gm.graph.erase_node(node)


def _replace_parameters(gm: fx.GraphModule, layer: fx.Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Give ``layer`` a new weight and bias, under the old names where no other node reads those."""
    bound = bind_arguments(layer)
    weight_node = _store(gm, layer, bound["weight"], str(bound["weight"].target), weight)
    owner = str(bound["weight"].target).rpartition(".")[0]
    bias_path = f"{owner}.bias" if owner else "bias"
    bias_node = _store(gm, layer, bound["bias"], bias_path, bias)
    rest = [value for name, value in bound.items() if name not in ("input", "weight", "bias")]
    layer.args = (bound["input"], weight_node, bias_node, *rest)
    layer.kwargs = {}


def _store(gm: fx.GraphModule, layer: fx.Node, old: fx.Node | None, default_path: str, value: torch.Tensor) -> fx.Node:
    old_path = default_path if old is None else str(old.target)
    path = old_path
    if _readers(gm, old_path) - {layer}:
        path = f"{old_path}_folded_{layer.name}"
        masks = graph_info(gm).weight_masks
        if old_path in masks:
            masks[path] = masks[old_path]
    set_attribute(gm, path, nn.Parameter(value, requires_grad=value.is_floating_point()))
    with gm.graph.inserting_before(layer):
        node = gm.graph.get_attr(path)
    node.meta["val"] = value
    return node


def _readers(gm: fx.GraphModule, path: str) -> set[fx.Node]:
    """Return the nodes that read the tensor at ``path``, under any of its names."""
    try:
        tensor = get_attribute(gm, path)
    except AttributeError:
        return set()
    return {
        user
        for node in gm.graph.nodes
        if node.op == "get_attr" and get_attribute(gm, str(node.target)) is tensor
        for user in node.users
    }


def _replace_by_affine(gm: fx.GraphModule, node: fx.Node, source: fx.Node, affine: _Affine) -> None:
    shape = (1, -1, *[1] * (node.meta["val"].dim() - 2))
    dtype = node.meta["val"].dtype
    with gm.graph.inserting_before(node):
        operands = []
        for name, values in zip(("scale", "shift"), affine, strict=True):
            path = f"{node.name}_{name}"
            set_attribute(gm, path, values.to(dtype).reshape(shape))
            operands.append(gm.graph.get_attr(path))
            operands[-1].meta["val"] = get_attribute(gm, path)
        scaled = gm.graph.call_function(torch.ops.aten.mul.Tensor, (source, operands[0]))
        shifted = gm.graph.call_function(torch.ops.aten.add.Tensor, (scaled, operands[1]))
    for new in (scaled, shifted):
        new.meta = dict(node.meta)
    node.replace_all_uses_with(shifted)
    gm.graph.erase_node(node)
