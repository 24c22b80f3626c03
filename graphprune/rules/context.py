"""What rules see: the state of an inference, of a resize, and of the masked reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import fx

from graphprune.axes import (
    Axis,
    AxisSolver,
    KeepMasks,
    Size,
    direct_sum,
    known_size,
    pin_of,
    size_from,
    size_of,
)
from graphprune.slicing import take_kept

Typed = list[Axis] | list[list[Axis]]
"""The axes of a node's value: of its tensor, or of each of its tensors."""


def tensors_of(typed: Typed) -> list[list[Axis]]:
    """Return the axes of each tensor of a value, of one tensor or of several."""
    if typed and isinstance(typed[0], list):
        return [axes for axes in typed if isinstance(axes, list)]
    return [[axis for axis in typed if isinstance(axis, Axis)]]


def flatten(typed: Typed) -> list[Axis]:
    """Return all axes of a value, of one tensor or of several."""
    if typed and isinstance(typed[0], Axis):  # as most are
        return cast("list[Axis]", list(typed))
    return [axis for axes in tensors_of(typed) for axis in axes]


def axes_of(types: Mapping[fx.Node, Typed], node: fx.Node) -> list[Axis]:
    """Return the axes of a tensor-valued node, as a fresh list."""
    return cast("list[Axis]", list(types[node]))


class CannotInfer(Exception):
    """Raised by a rule for a form of its op that it does not cover; all axes the node touches are then pinned."""


@dataclass(frozen=True, eq=False)
class Subset:
    """What is kept of ``part`` must be kept of ``whole`` at the same positions: ``node`` selects it from there."""

    node: str
    whole: Axis
    part: Axis

    def missing(self, masks: KeepMasks) -> NDArray[np.bool_]:
        """Return where ``part`` keeps what ``whole`` does not."""
        return _full_mask(masks, self.part) & ~_full_mask(masks, self.whole)

    def positions(self, masks: KeepMasks) -> NDArray[np.int64]:
        """Return where the kept elements of ``part`` stand among those of ``whole``."""
        return (np.cumsum(_full_mask(masks, self.whole)) - 1)[_full_mask(masks, self.part)]


def _full_mask(masks: KeepMasks, axis: Axis) -> NDArray[np.bool_]:
    mask = masks.mask(axis)
    return np.ones(known_size(axis), bool) if mask is None else mask


@dataclass
class Inference:
    """The state that ``infer`` faces read and extend.

    Attributes:
        solver: makes and unifies axes.
        types: node -> axes of its value (a list of lists for tuples of tensors).
        statistics: (node name, axis) pairs: the op computes a statistic over the axis, which is renormalised.
        roles: (role, axis) pairs, such as ("head", batch axis of an attention product).
        notes: node name -> what the rule leaves for its ``resize`` and ``masked`` faces.
        addresses: node -> the axis whose elements its integer values number, for nodes whose values are such numbers
            (a list, with None for other values, for tuples of tensors).
        claimed: operands of the node being typed whose addresses its rule has taken care of.
        minimums: (node name, axis, count): the op needs so many elements of the axis.
        constant_value: returns the value of a node that depends on no input and no parameter, None for other nodes.
        subsets: axes that may keep only what other axes keep.
    """

    solver: AxisSolver = field(default_factory=AxisSolver)
    types: dict[fx.Node, Typed] = field(default_factory=dict)
    statistics: list[tuple[str, Axis]] = field(default_factory=list)
    roles: list[tuple[str, Axis]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    addresses: dict[fx.Node, Any] = field(default_factory=dict)
    claimed: set[fx.Node] = field(default_factory=set)
    minimums: list[tuple[str, Axis, int]] = field(default_factory=list)
    constant_value: Callable[[fx.Node], torch.Tensor | None] = lambda node: None
    subsets: list[Subset] = field(default_factory=list)

    def axes(self, node: fx.Node) -> list[Axis]:
        """Return the axes of a tensor-valued node, as a fresh list."""
        return axes_of(self.types, node)

    def unify(self, a: Axis, b: Axis) -> None:
        """See :meth:`AxisSolver.unify`."""
        self.solver.unify(a, b)

    def pin(self, axis: Axis, reason: str) -> None:
        """See :meth:`AxisSolver.pin`."""
        self.solver.pin(axis, reason)

    def pin_all(self, axes: Iterable[Axis], reason: str) -> None:
        """Pin each of ``axes``."""
        for axis in axes:
            self.pin(axis, reason)

    def statistic(self, node: fx.Node, axes: Iterable[Axis]) -> None:
        """Record that ``node`` computes a statistic over ``axes``: over kept elements only once they shrink."""
        self.statistics += [(node.name, axis) for axis in axes if pin_of(axis) is None]

    def role(self, role: str, axes: Iterable[Axis]) -> None:
        """Record what ``axes`` are to people: "head", "head_dim", ..."""
        self.roles += [(role, axis) for axis in axes]

    def address(self, node: fx.Node) -> Axis | None:
        """Return the axis that the values of ``node`` number, if it may shrink; the caller takes care of it."""
        self.claimed.add(node)
        axis = self.addresses.get(node)
        return axis if isinstance(axis, Axis) and pin_of(axis) is None else None

    def fresh(self, value: Any) -> list[Axis]:
        """Return fresh free axes for a tensor value."""
        return [self.solver.leaf(size) for size in shape_of(value)]

    def constant(self, value: Any, reason: str) -> list[Axis]:
        """Return fresh pinned axes for a tensor value."""
        return [self.solver.pinned(size, reason) for size in shape_of(value)]

    def pin_operands(self, node: fx.Node, reason: str) -> None:
        """Pin all axes of the operands of ``node``."""
        for operand in node.all_input_nodes:
            self.pin_all(flatten(self.types.get(operand, [])), reason)

    def pin_everything(self, node: fx.Node, reason: str) -> Typed:
        """Pin all axes of the operands of ``node`` and return pinned axes for its value."""
        self.pin_operands(node, reason)
        value = node.meta["val"]
        if isinstance(value, torch.Tensor):
            return self.constant(value, reason)
        return [self.constant(item, reason) if isinstance(item, torch.Tensor) else [] for item in value]

    def concatenate(self, axes: Iterable[Axis]) -> Axis:
        """Return the direct sum of ``axes``, pinned where its size is dynamic: nobody knows then where a piece ends."""
        total = direct_sum(axes)
        if not isinstance(size_of(total), int):
            self.pin(total, "joined to an axis of dynamic size")
        return total

    def broadcast(self, operands: Sequence[Sequence[Axis]], rank: int) -> list[Axis]:
        """Align operands at the right and unify aligned axes; axes of size 1 say nothing about their partners."""
        result: list[Axis] = []
        for i in range(1, rank + 1):
            here = [axes[-i] for axes in operands if len(axes) >= i]
            wide = [axis for axis in here if not is_one(axis)]
            for axis in wide[1:]:
                self.unify(wide[0], axis)
            result.append(wide[0] if wide else self.solver.leaf(1))
        return result[::-1]


def shape_of(value: Any) -> list[Size]:
    """Return the shape of a (fake) tensor as sizes."""
    return [size_from(size) for size in value.shape]


def is_one(axis: Axis) -> bool:
    """Say whether the axis has exactly one element: such axes broadcast."""
    size = size_of(axis)
    return isinstance(size, int) and size == 1


def entry_at(value: Any, position: int, default: int) -> Any:
    """Return the entry for one axis of an argument that may be None, a scalar, a string or a list."""
    if value is None or value == []:
        return default
    if isinstance(value, (int, str)):
        return value
    return value[position if len(value) > 1 else 0]


def is_tensor_node(value: Any) -> bool:
    """Say whether ``value`` is a node whose value is one tensor."""
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


def tensor_nodes(values: Iterable[Any]) -> list[fx.Node]:
    """Return the tensor-valued nodes among ``values``, looking into lists and tuples."""
    found: list[fx.Node] = []
    for value in values:
        if is_tensor_node(value):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensor_nodes(value)
    return found


def dimensions(dim: Any, rank: int) -> list[int]:
    """Return a ``dim`` argument (None, int or list) as non-negative positions; None and [] mean all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(rank))
    return [d % rank for d in ([dim] if isinstance(dim, int) else dim)]


@dataclass(frozen=True)
class Ratio:
    """A symbolic size to be emitted as ``node // denominator * numerator``."""

    node: fx.Node
    numerator: int
    denominator: int


@dataclass(frozen=True, eq=False)
class NewBuffer:
    """A constant that the smaller graph needs and the original does not have."""

    name: str
    value: torch.Tensor

    @property
    def content(self) -> tuple[int, ...]:
        """The elements, to compare by."""
        return tuple(self.value.flatten().tolist())


@dataclass(frozen=True)
class NewConstant:
    """A constant that takes the place of an operand in the smaller graph."""

    operand: fx.Node
    value: torch.Tensor


@dataclass(frozen=True)
class NewCall:
    """A call that takes the place of an operand in the smaller graph."""

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resizing:
    """What ``resize`` faces read: the finished types and the masks."""

    types: dict[fx.Node, Typed]
    notes: dict[str, Any]
    masks: KeepMasks

    def axes(self, node: fx.Node) -> list[Axis]:
        """Return the axes of a tensor-valued node."""
        return axes_of(self.types, node)

    def count(self, axis: Axis) -> Size:
        """Return the new size of ``axis``."""
        return self.masks.count(axis)

    def counts(self, spelled: Sequence[Any], axes: Sequence[Axis]) -> list[Any]:
        """Return the new spelling of a list of sizes whose values are the sizes of ``axes``."""
        return [self.resized(value, axis) for value, axis in zip(spelled, axes, strict=True)]

    def resized(self, spelled: Any, axis: Axis) -> Any:
        """Return what replaces ``spelled`` (an int, or a node for a dynamic size), the size of ``axis``."""
        old, new = size_of(axis), self.count(axis)
        if old == new:
            return spelled
        if isinstance(new, int):
            return new
        if not isinstance(spelled, fx.Node):
            return -1
        numerator, denominator = sympy.fraction(sympy.cancel(sympy.sympify(new) / old))
        return Ratio(spelled, int(numerator), int(denominator))

    def changes(self, node: fx.Node) -> bool:
        """Say whether any axis of any tensor of the node's value shrinks."""
        return any(map(self.masks.changes, flatten(self.types.get(node, []))))

    def kept_before(self, axis: Axis, position: int) -> int:
        """Return where ``position`` moves to."""
        return self.masks.kept_before(axis, position)


@dataclass(frozen=True)
class MaskedInputs:
    """What ``masked`` faces read: the kept part of any input, and counts."""

    types: dict[fx.Node, Typed]
    notes: dict[str, Any]
    masks: KeepMasks
    values: dict[fx.Node, Any]

    def kept(self, node: fx.Node | None) -> torch.Tensor | None:
        """Return the node's value with removed positions cut out, or None for None."""
        if node is None:
            return None
        return take_kept(self.values[node], axes_of(self.types, node), self.masks)

    def call(self, node: fx.Node) -> Any:
        """Return what the op of ``node`` gives on the kept parts of its tensors, its other arguments as they are."""
        assert callable(node.target)

        def operand(argument: fx.Node) -> Any:
            return self.kept(argument) if is_tensor_node(argument) else self.values[argument]

        return node.target(*fx.map_arg(node.args, operand), **fx.map_arg(dict(node.kwargs), operand))

    def count(self, axis: Axis) -> int:
        """Return the number of kept elements of ``axis``."""
        count = self.masks.count(axis)
        assert isinstance(count, int)
        return count
