"""Lowers what passes values in tiles of [features, tokens] on, and says in which form layers take and give theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import fx
from tvm import relax

from graphprune.backend.kernels.contract import NOT_TILED, Tiled
from graphprune.backend.layout_plan import ELEMENTWISE, VIEWS, tokens_of
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels.tiling import Tile
    from graphprune.backend.lowering import Lowering

aten = torch.ops.aten


def tiled_operands(lowering: Lowering, node: fx.Node) -> Tiled:
    """Return which operands of a linear layer to pass in tiles.

    An input that is not held in them is brought into them if several layers read it; one layer does that by itself.
    """
    tile = lowering.layout.layers.get(node)
    if tile is None:
        return NOT_TILED
    bound = bind_arguments(node)
    x = bound["x"]
    out, residual = node in lowering.layout.kept, bound["residual"]
    return Tiled(
        x=lowering.in_tiles(x, tile) or _readers(x, lowering.layout.layers) > 1,
        residual=residual is not None and (out or lowering.in_tiles(residual, tile)),
        out=out,
    )


def _readers(node: fx.Node, tiles: Mapping[fx.Node, Tile]) -> int:
    """Return how many sparse linear layers have ``node`` as their input."""
    return sum(user in tiles and bind_arguments(user)["x"] is node for user in node.users)


def lower_view(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower a view of a value in tiles that keeps the last axis, which changes nothing there; others are TVM's."""
    if node not in lowering.layout.kept:
        return NotImplemented
    source, tile = node.args[0], lowering.layout.kept[node]
    assert isinstance(source, fx.Node)
    return lowering.hold_tiles(node, lowering.tiles(source, tile), tile)


def lower_elementwise(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower an element-wise op as TVM does, on tiles if its result is kept in them."""
    if node not in lowering.layout.kept:
        return NotImplemented
    tile = lowering.layout.kept[node]
    operands = {operand: _operand(lowering, operand, tile) for operand in node.all_input_nodes}
    return lowering.hold_tiles(node, lowering.imported(node, operands), tile)


def _operand(lowering: Lowering, node: fx.Node, tile: Tile) -> relax.Expr:
    """Return an operand so that it broadcasts against tiles: in tiles, or one value for each feature, or one value."""
    shape = tuple(node.meta["val"].shape)
    if tokens_of(node) == tile.grid_columns:
        return lowering.tiles(node, tile)
    value = lowering.value(node)
    return lowering.emit(relax.op.reshape(value, (shape[-1], 1))) if shape else value


def lower_mean(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower the mean over the features in tiles; any other is TVM's."""
    if node not in lowering.layout.kept:
        return NotImplemented
    tile = lowering.layout.kept[node]
    total = relax.op.mean(lowering.tiles(bind_arguments(node)["self"], tile), 1, keepdims=True)
    return lowering.hold_tiles(node, lowering.emit(total), tile)


def converters() -> dict[str, Callable[[Lowering, fx.Node], relax.Expr]]:
    """Return, by name of the op, what lowers views, element-wise ops and means."""
    views = {op.__name__: lower_view for op in (*VIEWS, aten.permute.default)}
    elementwise = {op.__name__: lower_elementwise for op in ELEMENTWISE}
    return {**views, **elementwise, aten.mean.dim.__name__: lower_mean}
