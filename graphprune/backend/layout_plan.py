"""Decides which activations go from kernel to kernel in tiles of [features, tokens], the form of sparse linear layers.

Sparse linear layers take and give such tiles. Layer norms, views, element-wise ops and means over the features pass on
what they get; anything else reads and writes values as the graph has them. Forms are chosen so that few floats change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from graphprune.backend.plane_layout import plan_planes
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels.contract import PlaneTile
    from graphprune.backend.kernels.tiling import Tile

aten = torch.ops.aten

_CHECKS = (aten._assert_tensor_metadata.default,)  # what export leaves of a conversion; they look at no element


@dataclass(frozen=True)
class Layout:
    """How activations travel between kernels.

    Attributes:
        layers: the tile of each sparse linear layer.
        kept: the tile of each value that is kept in tiles.
        changed: those of them that are read as the graph has them, too.
        convolutions: the tiles of planes that each sparse 1x1 convolution may give and take, see ``plane_layout``.
    """

    layers: Mapping[fx.Node, Tile] = field(default_factory=dict)
    kept: Mapping[fx.Node, Tile] = field(default_factory=dict)
    changed: Set[fx.Node] = frozenset()
    convolutions: Mapping[fx.Node, PlaneTile] = field(default_factory=dict)

    def tile(self, layer: fx.Node) -> Tile:
        """Return the tile in which a layer takes and gives values."""
        return self.layers[layer] if layer in self.layers else self.convolutions[layer].tile


VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
ELEMENTWISE = (
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


def plan_layout(
    graph: fx.Graph, tiles: Mapping[fx.Node, Tile], convolutions: Mapping[fx.Node, PlaneTile] | None = None
) -> Layout:
    """Return which values to keep in tiles.

    ``tiles`` holds the tile of each sparse linear layer, ``convolutions`` those that each sparse 1x1 convolution may
    give and take.
    """
    kept: dict[fx.Node, Tile] = {}
    changed: set[fx.Node] = set()
    for tile in dict.fromkeys(tiles.values()):
        layers = {node for node, own in tiles.items() if own == tile}
        passing = [node for node in graph.nodes if node not in tiles and _passes_on(node, tile)]
        forms = _Forms(layers, tile)
        forms.settle(passing)
        kept |= dict.fromkeys(forms.in_tiles, tile)
        changed |= {node for node in forms.in_tiles if False in forms.wanted(node)}
        kept |= {node: tile for node in layers if node.users and False not in forms.wanted(node)}
    convolutions = convolutions or {}
    return Layout(tiles, kept | plan_planes(convolutions), frozenset(changed), convolutions)


class _Forms:
    """The form of each value of one number of tokens, chosen so that few floats change it.

    Layers take their inputs in tiles and give results in them; what passes values on does so in one form; everything
    else takes and gives them as the graph has them.
    """

    def __init__(self, layers: Set[fx.Node], tile: Tile) -> None:
        self.layers, self.tile = layers, tile
        self.in_tiles: set[fx.Node] = set()

    def wanted(self, node: fx.Node) -> set[bool]:
        """Return in which forms the users of a value want it, True being tiles; a residual is as good in either."""
        users = [user for user in node.users if user not in self.layers or bind_arguments(user)["x"] is node]
        return {user in self.layers or user in self.in_tiles for user in users if user.target not in _CHECKS}

    def settle(self, passing: Sequence[fx.Node]) -> None:
        """Choose the form of each of ``passing``: first of all that hang together, then of single ones."""
        for group in _connected(passing):
            before = self._cost(group)
            self.in_tiles |= group
            if self._cost(group) >= before:
                self.in_tiles -= group
        while sum(self._improve(node) for node in passing):
            pass

    def _improve(self, node: fx.Node) -> bool:
        """Give a value the other form if that costs less, or as little where the graph's own form is the other."""
        before, was = self._cost({node}), node in self.in_tiles
        self.in_tiles ^= {node}
        after = self._cost({node})
        if after < before or (after == before and was):
            return True
        self.in_tiles ^= {node}
        return False

    def _cost(self, nodes: Set[fx.Node]) -> int:
        """Return the floats of those values at ``nodes``, results and operands, that exist in both forms."""
        values = set(nodes).union(*(node.all_input_nodes for node in nodes))
        return sum(
            self._changes(value) * prod(_shape(value)) for value in values if tokens_of(value) == self.tile.grid_columns
        )

    def _changes(self, node: fx.Node) -> bool:
        return len(self.wanted(node) | {node in self.layers or node in self.in_tiles}) > 1


def _connected(nodes: Sequence[fx.Node]) -> list[set[fx.Node]]:
    """Return the groups of ``nodes`` that hang together by edges of the graph."""
    groups: list[set[fx.Node]] = []
    for node in nodes:
        touching = [group for group in groups if not group.isdisjoint(node.all_input_nodes)]
        groups = [group for group in groups if group not in touching]
        groups.append({node}.union(*touching))
    return groups


def _passes_on(node: fx.Node, tile: Tile) -> bool:
    """Say whether the node's result can be in tiles because its operand, or all of them, can."""
    check = _PASSING.get(node.target)
    return check is not None and _is_activation(node) and tokens_of(node) == tile.grid_columns and check(node)


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


def _moves_single_axes(node: fx.Node) -> bool:
    """Say whether a permutation moves axes of size 1 only, so that the elements stay in order."""
    source, axes = node.args[0], bind_arguments(node)["dims"]
    assert isinstance(source, fx.Node)
    shape = _shape(source)
    moved = [axis % len(shape) for axis in axes if shape[axis] != 1]
    return _keeps_features(node) and moved == sorted(moved)


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


def tokens_of(node: fx.Node) -> int:
    """Return how many rows of features a tensor has; 0 stands for what is no tensor."""
    return prod(_shape(node)[:-1]) if isinstance(node.meta.get("val"), torch.Tensor) else 0


def _shape(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


_PASSING: dict[Any, Callable[[fx.Node], bool]] = {
    aten.layer_norm.default: _is_norm_of_features,
    aten.mean.dim: _is_mean_of_features,
    **dict.fromkeys(VIEWS, _keeps_features),
    aten.permute.default: _moves_single_axes,
    **dict.fromkeys(ELEMENTWISE, _is_elementwise),
}
