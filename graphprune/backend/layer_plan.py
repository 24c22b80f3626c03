"""Decides how each fused layer is computed: dense or sparse, as measured or by the cost models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from graphprune.backend.expansions import Expansions
from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.lowering import Lowering, static_shape
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.report import LayerTiming

if TYPE_CHECKING:
    from graphprune.backend.kernels import Choice, ConvShape, Kernel
    from graphprune.backend.kernels.contract import PlaneTile
    from graphprune.backend.kernels.tiling import Tile


@dataclass(frozen=True)
class LayerPlan:
    """How to compute a layer.

    Attributes:
        layer: the layer with its constants.
        sparse: whether its kernel is to skip zeros.
        choice: what measuring chose; None leaves it to the cost models.
        timing: what was measured; None if nothing was.
    """

    layer: FusedLayer
    sparse: bool
    choice: Choice | None = None
    timing: LayerTiming | None = None


def planned(lowering: Lowering, node: fx.Node) -> LayerPlan:
    """Return how to compute a fused layer; it is decided once.

    Raises:
        BackendError: if no kernel can take it.
    """
    if node not in lowering.plans:
        lowering.plans[node] = _plan(lowering, node)
    return lowering.plans[node]


def _plan(lowering: Lowering, node: fx.Node) -> LayerPlan:
    bound = bind_arguments(node)
    layer = _fused_layer(lowering, bound)
    sparse = bound["format"] == "csr"
    name = lowering.path(bound["weight"]) or node.name
    found = None if lowering.tuner is None else lowering.tuner.decide(name, layer, sparse=sparse)
    if found is None:
        return LayerPlan(layer, sparse)
    decision, origin = found
    way = decision.candidate
    try:
        layer.kernel(lowering.backend, lowering.target, sparse=way.sparse, choice=way.choice)
    except BackendError:  # measured with kernels that have changed since: the cost models choose
        return LayerPlan(layer, sparse)
    timing = LayerTiming(str(way), decision.seconds, decision.default_seconds, origin)
    return LayerPlan(layer, way.sparse, way.choice, timing)


def layer_tiles(lowering: Lowering, graph: fx.Graph) -> dict[fx.Node, Tile]:
    """Return the tile of [features, tokens] of each linear layer that the backend computes in such tiles."""
    tiles: dict[fx.Node, Tile] = {}
    for node, plan in _sparse_layers(lowering, graph, FUSED_LINEAR):
        tile = lowering.backend.token_tile(plan.layer.x_shape, lowering.target, plan.choice)
        if tile is not None:
            tiles[node] = tile
    return tiles


def plane_tiles(lowering: Lowering, graph: fx.Graph) -> dict[fx.Node, PlaneTile]:
    """Return the tiles of [channels, positions] that each convolution may give and take, where the backend has them."""
    tiles: dict[fx.Node, PlaneTile] = {}
    for node, plan in _sparse_layers(lowering, graph, FUSED_CONV2D):
        layer = plan.layer
        if layer.conv is None or node in lowering.expansions.inside:
            continue
        tile = lowering.backend.plane_tile(layer.weight.shape, layer.conv, lowering.target, plan.choice)
        if tile is not None:
            tiles[node] = tile
    return tiles


def plan_expansions(lowering: Lowering, graph: fx.Graph) -> Expansions:
    """Return the depthwise convolutions that the backend computes together with the sparse 1x1 one before them."""
    kernels: dict[fx.Node, Kernel] = {}
    for node, plan in _sparse_layers(lowering, graph, FUSED_CONV2D):
        reader = next(iter(node.users), None)
        if reader is None or reader.target != FUSED_CONV2D or len(node.users) > 1:
            continue
        bound = bind_arguments(reader)
        if bound["x"] is not node or bound["residual"] is node:
            continue
        try:
            after = planned(lowering, reader)
            if not after.sparse:
                layers = plan.layer.convolution(), after.layer.convolution()
                kernels[reader] = lowering.backend.expanded_depthwise(*layers, lowering.target)
        except BackendError:  # each has a kernel of its own, or lowering it says why not
            continue
    return Expansions(kernels)


def _sparse_layers(
    lowering: Lowering, graph: fx.Graph, op: torch._ops.OpOverload
) -> Iterator[tuple[fx.Node, LayerPlan]]:
    """Yield the layers of a kind whose kernels are to skip zeros; lowering says why one has none."""
    for node in graph.nodes:
        if node.target != op:
            continue
        try:
            plan = planned(lowering, node)
        except BackendError:
            continue
        if plan.sparse:
            yield node, plan


def conv_geometry(bound: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    """Return stride, padding, dilation and groups of a convolution from its bound arguments."""
    stride, padding, dilation = (_pair(bound[name]) for name in ("stride", "padding", "dilation"))
    return stride, padding, dilation, bound["groups"]


def _pair(values: Any) -> tuple[int, int]:
    return (int(values[0]), int(values[-1]))


def _fused_layer(lowering: Lowering, bound: dict[str, Any]) -> FusedLayer:
    """Return the layer with its constants; raises ``BackendError`` if no kernel can take it."""
    from graphprune.backend.kernels import ConvShape, Epilogue

    weight, bias = lowering.constant(bound["weight"]), lowering.constant(bound["bias"])
    if weight is None or (bias is None and bound["bias"] is not None):
        raise BackendError("the weight is not a float constant")
    x_shape = static_shape(bound["x"])
    epilogue = Epilogue(bound["bias"] is not None, bound["residual"] is not None, bound["activation"])
    conv = ConvShape(x_shape, *conv_geometry(bound)) if "stride" in bound else None
    if conv is not None and _sees_whole_planes(conv, weight.shape):
        return FusedLayer(weight.reshape(len(weight), -1), bias, (x_shape[0], math.prod(x_shape[1:])), epilogue)
    return FusedLayer(weight, bias, x_shape, epilogue, conv)


def _sees_whole_planes(conv: ConvShape, weight_shape: tuple[int, ...]) -> bool:
    """Say whether each output is a product of the whole sample, as in a linear layer."""
    plain = conv.groups == 1 and conv.padding == (0, 0) and conv.dilation == (1, 1)
    return plain and conv.x_shape[2:] == tuple(weight_shape[2:])
