"""The masked reference: runs the *original* graph as if removed elements did not exist.

After every node, removed positions of its value are zero; ops that compute a statistic over a shrinking axis take it
over kept positions only. A shrunk graph must equal this reference, so it is the oracle of all tests.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch import fx

from graphprune.axes import Axis, KeepMasks, size_of
from graphprune.graph import bind_arguments, run_interpreter
from graphprune.inference import Typing
from graphprune.rules import rule_for
from graphprune.rules.context import MaskedInputs, Typed
from graphprune.slicing import put_back, zero_removed


class MaskedInterpreter(fx.Interpreter):
    """Runs a traced graph under keep-masks.

    Args:
        gm: the original graph, not modified.
        typing: its axes, from :func:`graphprune.inference.infer_axes`.
        masks: which elements are kept.
    """

    def __init__(self, gm: fx.GraphModule, typing: Typing, masks: KeepMasks) -> None:
        super().__init__(gm)
        self._typing = typing
        self._masks = masks

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and zero the removed positions of its value."""
        typed = self._typing.types.get(n)
        masked = self._masked_face(n)
        if masked is not None:
            inputs = MaskedInputs(self._typing.types, self._typing.notes, self._masks, self.env)
            return _map_tensors(masked(inputs, n, bind_arguments(n)), typed, self._scatter)
        value = super().run_node(n)
        return value if n.op == "output" or typed is None else _map_tensors(value, typed, self._zero)

    def _masked_face(self, node: fx.Node) -> Any:
        """Return the rule's own reference if some input of the node shrinks, else None."""
        rule = rule_for(node) if node.op == "call_function" else None
        if rule is None or rule.masked is None:
            return None
        operands = [self._typing.types[operand] for operand in node.all_input_nodes if operand in self._typing.types]
        shrinks = any(self._masks.changes(axis) for typed in operands for axis in typed if isinstance(axis, Axis))
        return rule.masked if shrinks else None

    def _zero(self, value: torch.Tensor, axes: list[Axis]) -> torch.Tensor:
        return zero_removed(value, axes, self._masks)

    def _scatter(self, value: torch.Tensor, axes: list[Axis]) -> torch.Tensor:
        """Put kept elements back to their old positions, zeros elsewhere."""
        shape = [self._original_size(axis, size) for axis, size in zip(axes, value.shape, strict=True)]
        return put_back(value, axes, self._masks, shape)

    def _original_size(self, axis: Axis, kept: int) -> int:
        """Return the run-time size of an axis of which ``kept`` elements are kept, dynamic products included."""
        size = size_of(axis)
        return size if isinstance(size, int) else int(kept * sympy.cancel(size / self._masks.count(axis)))


def _map_tensors(value: Any, typed: Typed | None, function: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value, typed)
    if isinstance(value, (tuple, list)) and typed is not None:
        return type(value)(
            function(v, axes) if isinstance(v, torch.Tensor) else v for v, axes in zip(value, typed, strict=False)
        )
    return value


def run_masked(gm: fx.GraphModule, typing: Typing, masks: KeepMasks, *args: Any, **kwargs: Any) -> Any:
    """Run ``gm`` under ``masks`` on these inputs and return its output, the pytree the model returns."""
    with torch.no_grad():
        return run_interpreter(MaskedInterpreter(gm, typing, masks), args, kwargs)
