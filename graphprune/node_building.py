"""Adds nodes to a traced graph, each with the value that it has, in place of a node that is being rewritten."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.node import map_arg

from graphprune.graph import set_attribute

_ORIGIN = ("stack_trace", "nn_module_stack")


class NodeBuilder:
    """Inserts nodes where the graph inserts at the time; they come from the user's line that made ``node``."""

    def __init__(self, gm: fx.GraphModule, node: fx.Node) -> None:
        """Build for a rewrite of ``node`` in ``gm``."""
        self._gm = gm
        self._node = node
        values = node.meta["val"]
        value = values[0] if isinstance(values, (tuple, list)) else values
        self._mode = value.fake_mode if isinstance(value, FakeTensor) else FakeTensorMode(allow_non_fake_inputs=True)

    def call(self, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Return a new call of ``op``."""
        node = self._gm.graph.call_function(op, args, kwargs)
        positional, named = map_arg((args, kwargs), lambda operand: operand.meta["val"])
        with self._mode, torch.no_grad():
            node.meta["val"] = op(*positional, **named)
        node.meta |= {key: self._node.meta[key] for key in _ORIGIN if key in self._node.meta}
        return node

    def constant(self, old_path: str, value: torch.Tensor) -> fx.Node:
        """Return a node that reads ``value``, under the old path if no other node than the rewritten one reads that."""
        reading = [node for node in self._gm.graph.nodes if node.op == "get_attr" and str(node.target) == old_path]
        shared = any(user is not self._node for node in reading for user in node.users)
        return self.attribute(f"{old_path}_of_{self._node.name}" if shared else old_path, value)

    def attribute(self, path: str, value: torch.Tensor) -> fx.Node:
        """Store ``value`` as a parameter without gradient and return a node that reads it."""
        set_attribute(self._gm, path, nn.Parameter(value, requires_grad=False))
        node = self._gm.graph.get_attr(path)
        node.meta["val"] = self._mode.from_tensor(value, static_shapes=True)
        return node
