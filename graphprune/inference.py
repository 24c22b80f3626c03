"""Types every axis of a traced graph by walking it once with the op rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from graphprune.axes import Axis, AxisSolver, Size, size_of
from graphprune.constant_values import ConstantValues
from graphprune.errors import VerificationError
from graphprune.graph import bind_arguments, get_attribute
from graphprune.rules import rule_for
from graphprune.rules.addresses import follow_addresses
from graphprune.rules.context import CannotInfer, Inference, Subset, Typed, shape_of, tensor_nodes, tensors_of
from graphprune.rules.registry import rule_name


@dataclass(frozen=True)
class Typing:
    """The result of axis inference on one graph.

    Attributes:
        types: node -> axes of its value; a list of lists for several tensors; absent for values that are no tensors.
        attributes: path of a parameter, buffer or constant -> its axes. Tied tensors share axes.
        parameters: the paths among them that are ``nn.Parameter``.
        origins: path -> identity of the leaf each axis started as, the roots of explanations.
        statistics: (node name, axis): the op computes a statistic over the axis.
        roles: (role, axis), as recorded by rules.
        notes: what rules left for resizing, by node name.
        minimums: (node name, axis, count): the op needs so many elements of the axis.
        unknown: op without a rule (or without a rule for this form) -> names of its nodes.
        solver: the trail of links and pins.
        subsets: axes that may keep only what other axes keep.
    """

    types: dict[fx.Node, Typed]
    attributes: dict[str, list[Axis]]
    parameters: frozenset[str]
    origins: dict[str, list[int]]
    statistics: list[tuple[str, Axis]]
    roles: list[tuple[str, Axis]]
    notes: dict[str, Any]
    minimums: list[tuple[str, Axis, int]]
    unknown: dict[str, list[str]]
    solver: AxisSolver
    subsets: list[Subset] = field(default_factory=list)


def infer_axes(gm: fx.GraphModule) -> Typing:
    """Type every axis of ``gm``; ops without a rule pin the axes they touch and are listed in ``unknown``.

    Raises:
        VerificationError: if a rule predicts a shape that the op does not have (a bug in the rule).
    """
    return _Walk(gm, Inference(constant_value=ConstantValues(gm))).run()


@dataclass
class _Walk:
    gm: fx.GraphModule
    context: Inference
    attributes: dict[str, list[Axis]] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    origins: dict[str, list[int]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    by_tensor: dict[int, list[Axis]] = field(default_factory=dict)

    def run(self) -> Typing:
        for node in self.gm.graph.nodes:
            self.context.solver.node = node.name
            typed = self._type(node)
            if typed is not None:
                _check_sizes(node, typed)
                self.context.types[node] = typed
            follow_addresses(self.context, node)
        return Typing(
            types=self.context.types,
            attributes=self.attributes,
            parameters=frozenset(self.parameters),
            origins=self.origins,
            statistics=self.context.statistics,
            roles=self.context.roles,
            notes=self.context.notes,
            minimums=self.context.minimums,
            unknown=self.unknown,
            solver=self.context.solver,
            subsets=self.context.subsets,
        )

    def _type(self, node: fx.Node) -> Typed | None:
        value = node.meta.get("val")
        if node.op == "placeholder":
            return self.context.constant(value, "model input") if isinstance(value, torch.Tensor) else None
        if node.op == "get_attr":
            return self._attribute(node)
        if node.op == "output":
            for result in tensor_nodes(node.args):
                self.context.pin_all(self.context.axes(result), "model output")
            return None
        if _has_tensors(value):
            return self._call(node)
        if value is None:
            self.context.pin_operands(node, f"{rule_name(node)} has no result to follow")
        return None

    def _attribute(self, node: fx.Node) -> Typed | None:
        path = str(node.target)
        tensor = get_attribute(self.gm, path)
        if not isinstance(tensor, torch.Tensor):
            return None
        if id(tensor) not in self.by_tensor:
            self.by_tensor[id(tensor)] = self.context.fresh(tensor)
        axes = self.by_tensor[id(tensor)]
        if path not in self.attributes:
            self.attributes[path] = axes
            self.origins[path] = [axis.identity for axis in axes]
        if isinstance(tensor, nn.Parameter):
            self.parameters.add(path)
        return axes

    def _call(self, node: fx.Node) -> Typed:
        rule = rule_for(node)
        if rule is not None:
            try:
                return rule.infer(self.context, node, bind_arguments(node))
            except CannotInfer as reason:
                return self._give_up(node, str(reason))
        return self._give_up(node, f"no rule for {rule_name(node)}")

    def _give_up(self, node: fx.Node, reason: str) -> Typed:
        self.context.claimed.clear()
        self.unknown.setdefault(rule_name(node), []).append(node.name)
        return self.context.pin_everything(node, reason)


def _has_tensors(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(isinstance(item, torch.Tensor) for item in value)
    return isinstance(value, torch.Tensor)


def typed_values(value: Any, typed: Typed) -> list[tuple[torch.Tensor, Sequence[Axis]]]:
    """Pair the tensors of a node's value with their axes."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return [(v, axes) for v, axes in zip(values, tensors_of(typed), strict=False) if isinstance(v, torch.Tensor)]


def _check_sizes(node: fx.Node, typed: Typed) -> None:
    for value, axes in typed_values(node.meta.get("val"), typed):
        predicted: list[Size] = [size_of(axis) for axis in axes]
        actual = shape_of(value)
        if predicted != actual:
            raise VerificationError(
                f"the rule for {rule_name(node)} predicts shape {predicted}, the op has {actual}",
                node=node,
                hint="this is a bug in graphprune: please report the op and its arguments",
            )
