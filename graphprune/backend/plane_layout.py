"""Decides which planes go from convolution to convolution in tiles of [channels, positions], the form of sparse 1x1s.

A sparse 1x1 convolution without strides reads such tiles in place, where it would copy planes together first; results
and residuals take either form. So a result stays in tiles if a convolution reads it so and nothing needs it as planes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import fx

from graphprune.backend.kernels.contract import NOT_TILED, PlaneTile, Tiled
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels.tiling import Tile
    from graphprune.backend.lowering import Lowering


def plan_planes(convolutions: Mapping[fx.Node, PlaneTile]) -> dict[fx.Node, Tile]:
    """Return which results to keep in tiles; ``convolutions`` holds the tiles that sparse ones may give and take."""
    return {node: own.tile for node, own in convolutions.items() if _stays_in_tiles(node, own.tile, convolutions)}


def _stays_in_tiles(node: fx.Node, tile: Tile, convolutions: Mapping[fx.Node, PlaneTile]) -> bool:
    """Say whether all users of a convolution's result take it in tiles, and at least one as its input."""
    inputs = 0
    for user in node.users:
        possible = convolutions.get(user)
        if possible is None or possible.tile != tile:
            return False
        if bind_arguments(user)["x"] is node:
            if not possible.takes:
                return False
            inputs += 1
    return inputs > 0


def tiled_planes(lowering: Lowering, node: fx.Node) -> Tiled:
    """Return which operands of a convolution to pass in tiles: those that are held so."""
    possible = lowering.layout.convolutions.get(node)
    if possible is None:
        return NOT_TILED
    bound = bind_arguments(node)
    x, residual = (
        bound[name] is not None and lowering.in_tiles(bound[name], possible.tile) for name in ("x", "residual")
    )
    return Tiled(x=x and possible.takes, residual=residual, out=node in lowering.layout.kept)
