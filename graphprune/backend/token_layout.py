"""Decides which activations go from kernel to kernel in tiles of [features, tokens], the form of sparse linear layers.

A value is kept in tiles if everything that reads it can take the same tiles: sparse linear layers, and layer norms,
views, element-wise ops and means over the features whose own results are kept in tiles.
Anything else reads it as the graph has it. A change of form costs little beside a layer, but it is not free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from tvm import relax

from graphprune.backend.kernels.contract import NOT_TILED, Tiled
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels.tiling import Tile
    from graphprune.backend.lowering import Lowering

aten = torch.ops.aten

_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_ELEMENTWISE = (
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.pow.Tensor_Scalar,
    aten.neg.default,
    aten.abs.default,
    aten.exp.default,
    aten.rsqrt.default,
    aten.sqrt.default,
    aten.relu.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.clamp.default,
    aten.gelu.default,
    aten.silu.default,
    aten.sigmoid.default,
    aten.tanh.default,
)


def kept_in_tiles(graph: fx.Graph, tiles: Mapping[fx.Node, Tile]) -> dict[fx.Node, Tile]:
    """Return the tile of each value to keep in tiles; ``tiles`` holds that of each sparse linear layer."""
    kept: dict[fx.Node, Tile] = {}
    for node in reversed(graph.nodes):
        wanted = {_taken(user, node, tiles, kept) for user in node.users}
        tile = wanted.pop() if len(wanted) == 1 else None
        if tile is not None and (tiles[node] == tile if node in tiles else _passes_on(node, tile)):
            kept[node] = tile
    for node in graph.nodes:
        own = node in tiles or any(operand in kept for operand in node.all_input_nodes)
        if node in kept and not own and _readers(node, tiles) < 2:
            del kept[node]  # the one layer that reads it can transpose it along the way
    return kept


def tiled_operands(lowering: Lowering, node: fx.Node) -> Tiled:
    """Return which operands of a linear layer to pass in tiles.

    An input that is not held in them is brought into them if several layers read it; one layer does that by itself.
    """
    tile = lowering.layer_tiles.get(node)
    if tile is None:
        return NOT_TILED
    bound = bind_arguments(node)
    x = bound["x"]
    out, residual = node in lowering.kept, bound["residual"]
    return Tiled(
        x=lowering.in_tiles(x, tile) or _readers(x, lowering.layer_tiles) > 1,
        residual=residual is not None and (out or lowering.in_tiles(residual, tile)),
        out=out,
    )


def _readers(node: fx.Node, tiles: Mapping[fx.Node, Tile]) -> int:
    """Return how many sparse linear layers have ``node`` as their input."""
    return sum(user in tiles and bind_arguments(user)["x"] is node for user in node.users)


def lower_view(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower a view of a value in tiles that keeps the last axis, which changes nothing there; others are TVM's."""
    if node not in lowering.kept:
        return NotImplemented
    source, tile = node.args[0], lowering.kept[node]
    assert isinstance(source, fx.Node)
    return lowering.hold_tiles(node, lowering.tiles(source, tile), tile)


def lower_elementwise(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower an element-wise op as TVM does, on tiles if its result is kept in them."""
    if node not in lowering.kept:
        return NotImplemented
    tile = lowering.kept[node]
    operands = {operand: _operand(lowering, operand, tile) for operand in node.all_input_nodes}
    return lowering.hold_tiles(node, lowering.imported(node, operands), tile)


def _operand(lowering: Lowering, node: fx.Node, tile: Tile) -> relax.Expr:
    """Return an operand so that it broadcasts against tiles: in tiles, or one value for each feature, or one value."""
    shape = _shape(node)
    if prod(shape[:-1]) == tile.grid_columns:
        return lowering.tiles(node, tile)
    value = lowering.value(node)
    return lowering.emit(relax.op.reshape(value, (shape[-1], 1))) if shape else value


def lower_mean(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower the mean over the features in tiles; any other is TVM's."""
    if node not in lowering.kept:
        return NotImplemented
    tile = lowering.kept[node]
    total = relax.op.mean(lowering.tiles(bind_arguments(node)["self"], tile), 1, keepdims=True)
    return lowering.hold_tiles(node, lowering.emit(total), tile)


def converters() -> dict[str, Callable[[Lowering, fx.Node], relax.Expr]]:
    """Return, by name of the op, what lowers views, element-wise ops and means."""
    views = {op.__name__: lower_view for op in _VIEWS}
    elementwise = {op.__name__: lower_elementwise for op in _ELEMENTWISE}
    return {**views, **elementwise, aten.mean.dim.__name__: lower_mean}


def _taken(user: fx.Node, node: fx.Node, tiles: Mapping[fx.Node, Tile], kept: Mapping[fx.Node, Tile]) -> Tile | None:
    """Return the tile in which ``user`` can read ``node``."""
    return tiles[user] if user in tiles else kept.get(user)  # what is no layer passes on what it gets


def _passes_on(node: fx.Node, tile: Tile) -> bool:
    """Say whether the node's result can be in tiles because its operand, or all of them, can."""
    check = _PASSING.get(node.target)
    return check is not None and _is_activation(node) and prod(_shape(node)[:-1]) == tile.grid_columns and check(node)


def _is_norm_of_features(node: fx.Node) -> bool:
    bound = bind_arguments(node)
    return len(bound["normalized_shape"]) == 1 and _is_activation(bound["input"])


def _is_mean_of_features(node: fx.Node) -> bool:
    bound = bind_arguments(node)
    axes = [axis % len(_shape(node)) for axis in bound["dim"] or ()]
    return axes == [len(_shape(node)) - 1] and bound["keepdim"] and _is_activation(bound["self"])


def _keeps_features(node: fx.Node) -> bool:
    source = node.args[0]
    return isinstance(source, fx.Node) and _is_activation(source) and _shape(source)[-1] == _shape(node)[-1]


def _is_elementwise(node: fx.Node) -> bool:
    """Say whether each tensor among the operands has as many tokens as the result, or no axis but the features."""
    *tokens, features = _shape(node)

    def fits(operand: fx.Node) -> bool:
        *others, last = _shape(operand) or (1,)
        return _is_float(operand) and last in (1, features) and (others == tokens or prod(others) == 1)

    return bool(node.all_input_nodes) and all(map(fits, node.all_input_nodes))


def _is_activation(node: fx.Node) -> bool:
    return _is_float(node) and len(_shape(node)) > 1


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _shape(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


_PASSING: dict[Any, Callable[[fx.Node], bool]] = {
    aten.layer_norm.default: _is_norm_of_features,
    aten.mean.dim: _is_mean_of_features,
    **dict.fromkeys(_VIEWS, _keeps_features),
    **dict.fromkeys(_ELEMENTWISE, _is_elementwise),
}
