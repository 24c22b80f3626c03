"""Finds the weights of a graph: which parameters multiply activations, and along which axes they do so.

The graph decides, not the module types: a weight is what a linear, convolution or matrix-product node reads as its
weight operand, be it from ``nn.Linear``, a bare ``nn.Parameter`` or a transformers ``Conv1D``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from graphprune.graph import bind_arguments, get_attribute, op_name

# op -> (name of the activation argument, name of the weight argument, kind)
_OPERANDS = {
    "linear": ("input", "weight", "linear"),
    "conv1d": ("input", "weight", "conv"),
    "conv2d": ("input", "weight", "conv"),
    "conv3d": ("input", "weight", "conv"),
    "conv_transpose1d": ("input", "weight", "conv_transpose"),
    "conv_transpose2d": ("input", "weight", "conv_transpose"),
    "conv_transpose3d": ("input", "weight", "conv_transpose"),
    "convolution": ("input", "weight", "conv"),
    "mm": ("self", "mat2", "matmul"),
    "matmul": ("self", "other", "matmul"),
    "addmm": ("mat1", "mat2", "matmul"),
    "fused_linear": ("x", "weight", "linear"),
    "fused_conv2d": ("x", "weight", "conv"),
}


@dataclass(frozen=True)
class WeightUse:
    """One place where a node multiplies activations by a weight.

    Attributes:
        node: the linear, convolution or matrix-product node.
        activation: the node whose value is multiplied.
        path: dotted path of the weight.
        kind: ``linear`` ``[out, in]``, ``conv`` ``[out, in / groups, *kernel]``, ``conv_transpose``
            ``[in, out / groups, *kernel]`` or ``matmul`` ``[in, out]``.
        groups: groups of a convolution, else 1.
        activation_axis: the activation's axis of features (the last one) or channels, counted from the end, since a
            convolution also takes input without a batch axis.
    """

    node: fx.Node
    activation: fx.Node
    path: str
    kind: str
    groups: int
    activation_axis: int

    @property
    def input_axis(self) -> int:
        """The weight's axis that is summed over together with the activation's features or channels."""
        return 1 if self.kind in ("linear", "conv") else 0

    @property
    def output_axis(self) -> int:
        """The weight's axis that makes the output's features or channels."""
        return 1 - self.input_axis


def weight_uses(gm: fx.GraphModule) -> list[WeightUse]:
    """Return every use of a weight of at least two axes, in graph order."""
    uses = (_weight_use(gm, node) for node in gm.graph.nodes)
    return [use for use in uses if use is not None]


def _weight_use(gm: fx.GraphModule, node: fx.Node) -> WeightUse | None:
    operands = _OPERANDS.get(op_name(node))
    if operands is None:
        return None
    activation_name, weight_name, kind = operands
    arguments = bind_arguments(node)
    activation, weight = arguments[activation_name], arguments[weight_name]
    if not (isinstance(weight, fx.Node) and weight.op == "get_attr" and isinstance(activation, fx.Node)):
        return None
    value = get_attribute(gm, str(weight.target))
    if not isinstance(value, torch.nn.Parameter) or value.dim() < 2 or (kind == "matmul" and value.dim() != 2):
        return None
    if arguments.get("transposed"):
        kind = "conv_transpose"
    axis = -1 if kind in ("linear", "matmul") else 1 - value.dim()
    return WeightUse(node, activation, str(weight.target), kind, int(arguments.get("groups") or 1), axis)


def other_readers(gm: fx.GraphModule, path: str) -> list[fx.Node]:
    """Return the nodes that read the parameter at ``path`` otherwise than as a weight, such as a tied embedding."""
    users = [user for node in readers(gm, path) for user in node.users]
    return [user for user in users if _weight_use(gm, user) is None]


def readers(gm: fx.GraphModule, path: str) -> list[fx.Node]:
    """Return the ``get_attr`` nodes of the tensor at ``path``; they differ in path if the tensor is tied."""
    tensor = get_attribute(gm, path)
    nodes = [node for node in gm.graph.nodes if node.op == "get_attr"]
    return [node for node in nodes if get_attribute(gm, str(node.target)) is tensor]
