"""Makes the physically smaller graph: slices attributes, rewrites sizes, and checks every shape.

Symbolic integers (``sym_size`` nodes and arithmetic on them) keep their *original* values in the new graph: where an
axis shrinks, its ``sym_size`` is scaled back. Size arguments that must shrink are scaled down where they are used.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import sympy
import torch
from torch import fx, nn

from graphprune.analysis import Analysis, analyze
from graphprune.axes import KeepMasks, same_size, size_of
from graphprune.errors import VerificationError
from graphprune.graph import (
    assemble,
    bind_arguments,
    graph_info,
    is_traced,
    prune_unused_attributes,
    set_attribute,
    transfer_attributes,
)
from graphprune.inference import typed_values
from graphprune.plans import Plan
from graphprune.propagation import check_runs
from graphprune.rules import rule_for
from graphprune.rules.context import NewBuffer, NewCall, NewConstant, Ratio, Resizing, shape_of
from graphprune.sections.planned import without_layers
from graphprune.slicing import take_kept


def shrink(gm: fx.GraphModule, plan: Plan, *, analysis: Analysis | None = None) -> fx.GraphModule:
    """Return the graph without the units or layers that ``plan`` removes; ``gm`` stays as it is.

    Args:
        gm: a traced graph.
        plan: made for this graph.
        analysis: of this graph, if at hand.

    Raises:
        MaskError, EmptyAxisError: if the plan does not fit the graph.
        VerificationError: if any node of the new graph has another shape than predicted (a bug in graphprune).
    """
    if plan.layers:
        return without_layers(gm, plan)
    analysis = analysis or analyze(gm)
    masks = analysis.masks(plan)
    result, origin = _Rewrite(gm, analysis, masks).run()
    _check_shapes(result, origin, analysis, masks)
    return result


class _Rewrite:
    """Builds the new graph node by node."""

    def __init__(self, gm: fx.GraphModule, analysis: Analysis, masks: KeepMasks) -> None:
        self._gm = gm
        self._types = analysis.typing.types
        self._analysis = analysis
        self._masks = masks
        self._resizing = Resizing(analysis.typing.types, analysis.typing.notes, masks)
        self._graph = fx.Graph()
        self._copies: dict[fx.Node, fx.Node] = {}
        self._origins: dict[fx.Node, fx.Node] = {}
        self._selections: dict[Any, fx.Node] = {}
        self._replaced: list[fx.Node] = []
        self._erased: set[fx.Node] = set()
        self._renamed: set[str] = set()
        self._root = transfer_attributes(gm, self._sliced)

    def run(self) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
        """Return the new graph and, for each of its nodes, the old node it came from."""
        for node in self._gm.graph.nodes:
            self._copies[node] = self._copy(node)
        self._erase_replaced()
        result = assemble(self._gm, self._root, self._graph)
        if self._erased:
            prune_unused_attributes(result)
        self._slice_weight_masks(result)
        return result, {new: old for new, old in self._origins.items() if old not in self._erased}

    # ------------------------------------------------------------------------------------------------ attributes

    def _sliced(self, path: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        tensor = take_kept(value.detach(), self._analysis.typing.attributes[path], self._masks)
        if tensor.data_ptr() == value.data_ptr():
            tensor = tensor.clone()
        return nn.Parameter(tensor, value.requires_grad) if isinstance(value, nn.Parameter) else tensor

    def _slice_weight_masks(self, result: fx.GraphModule) -> None:
        if is_traced(result):
            info, attributes = graph_info(result), self._analysis.typing.attributes
            info.weight_masks = {
                path: take_kept(mask, attributes[path], self._masks).clone()
                for path, mask in info.weight_masks.items()
                if path in attributes
            }

    # ------------------------------------------------------------------------------------------------ nodes

    def _copy(self, node: fx.Node) -> fx.Node:
        rule = rule_for(node) if node.op == "call_function" else None
        if rule is not None and rule.resize is not None and node in self._types:
            new = self._resized(node, rule.resize)
        else:
            new = self._graph.node_copy(node, lambda n: self._copies[n])
        if new in self._origins:
            return new
        self._origins[new] = node
        new.meta = dict(node.meta)
        if node.op == "call_function" and node.target is torch.ops.aten.sym_size.int:
            return self._original_size(node, new)
        return new

    def _resized(self, node: fx.Node, resize: Any) -> fx.Node:
        arguments = bind_arguments(node)
        target = resize(self._resizing, node, arguments) or node.target
        if isinstance(target, fx.Node):
            return self._copies[target]
        equal = _same_selection(target, arguments)
        if equal is not None and equal in self._selections:
            return self._selections[equal]
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in target._schema.arguments:  # type: ignore[union-attr]
            value = arguments.get(argument.name)
            if not argument.kwarg_only:
                args.append(self._lowered(value))
            elif value is not None:
                kwargs[argument.name] = self._lowered(value)
        new = self._graph.create_node("call_function", target, tuple(args), kwargs, name=node.name)
        if equal is not None:
            self._selections[equal] = new
        return new

    def _lowered(self, value: Any) -> Any:
        """Return an argument for the new graph, with ratios emitted as nodes."""
        if isinstance(value, Ratio):
            return self._scaled(self._copies[value.node], value.numerator, value.denominator)
        if isinstance(value, NewBuffer):
            return self._new_buffer(value)
        if isinstance(value, NewConstant):
            return self._new_constant(value)
        if isinstance(value, NewCall):
            args = tuple(self._lowered(item) for item in value.args)
            return self._graph.call_function(value.target, args, dict(value.kwargs))
        if isinstance(value, (list, tuple)):
            return [self._lowered(item) for item in value]
        return fx.map_arg(value, lambda n: self._copies[n])

    def _new_constant(self, constant: NewConstant) -> fx.Node:
        """Put a constant among the attributes: under the name of the buffer it replaces, if nobody else reads that."""
        old = constant.operand
        self._replaced.append(old)
        path = str(old.target)
        readers = [n for n in self._gm.graph.nodes if n.op == "get_attr" and n.target == old.target]
        if old.op != "get_attr" or len(readers) > 1 or len(old.users) > 1 or old.target in self._renamed:
            path = f"{old.name}_renumbered{len(self._renamed)}"
        self._renamed.add(path)
        set_attribute(self._root, path, constant.value)
        node = self._graph.get_attr(path)
        node.meta = {key: value for key, value in old.meta.items() if key != "val"}
        return node

    def _erase_replaced(self) -> None:
        """Erase constants that have been replaced, and what only they needed, where nobody reads them any more."""
        while self._replaced:
            old = self._replaced.pop()
            new = self._copies[old]
            if not new.users and old not in self._erased and old.op != "placeholder":
                self._replaced += old.all_input_nodes
                self._erased.add(old)
                self._graph.erase_node(new)

    def _new_buffer(self, buffer: NewBuffer) -> fx.Node:
        set_attribute(self._root, buffer.name, buffer.value)
        node = self._graph.create_node("get_attr", buffer.name)
        node.meta["val"] = buffer.value
        return node

    def _scaled(self, node: fx.Node, numerator: int, denominator: int) -> fx.Node:
        if denominator != 1:
            node = self._graph.call_function(operator.floordiv, (node, denominator))
        return node if numerator == 1 else self._graph.call_function(operator.mul, (node, numerator))

    def _original_size(self, node: fx.Node, new: fx.Node) -> fx.Node:
        """Scale a shrunk ``sym_size`` back, so that symbolic integers keep their original values."""
        operand, d = node.args
        assert isinstance(operand, fx.Node) and isinstance(d, int)
        axis = self._resizing.axes(operand)[d]
        if not self._masks.changes(axis):
            return new
        numerator, denominator = sympy.fraction(sympy.cancel(sympy.sympify(size_of(axis)) / self._masks.count(axis)))
        return self._scaled(new, int(numerator), int(denominator))


def _same_selection(target: Any, arguments: dict[str, Any]) -> Any:
    """Return a key that calls with equal new constants share, or None for other calls."""
    if not any(isinstance(value, NewBuffer) for value in arguments.values()):
        return None
    return target, *(value.content if isinstance(value, NewBuffer) else value for value in arguments.values())


def _check_shapes(result: fx.GraphModule, origin: dict[fx.Node, fx.Node], analysis: Analysis, masks: KeepMasks) -> None:
    """Propagate fake tensors through ``result`` and require every node's shape to equal the predicted one."""
    check_runs(result, "the shrunk graph", "the model and the plan")
    for node in result.graph.nodes:
        old = origin.get(node)
        typed = None if old is None else analysis.typing.types.get(old)
        if typed is None or node.op == "output":
            continue
        for value, axes in typed_values(node.meta.get("val"), typed):
            predicted = [masks.count(axis) for axis in axes]
            actual = shape_of(value)
            if len(actual) != len(predicted) or not all(map(same_size, actual, predicted)):
                raise VerificationError(
                    f"after shrinking, {node.name} ({node.target}) has shape {actual}, predicted was {predicted}",
                    node=old,
                    hint="this is a bug in graphprune: please report the model and the plan",
                )
