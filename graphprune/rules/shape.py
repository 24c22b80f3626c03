"""Ops that rearrange axes without touching values: view, permute, squeeze and relatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.axes import Axis, Size, multiply, pin_of, product, size_of
from graphprune.rules.context import CannotInfer, Inference, Resizing, Typed, dimensions, is_one, shape_of
from graphprune.rules.registry import Arguments, resize, rule

VIEWS = ("view", "reshape", "_unsafe_view")


@rule(*VIEWS, "flatten", "unflatten", "view_as", "reshape_as", "ravel")
def view(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Cut both shapes where their running products agree; each piece is one row-major product"""
    if arguments.get("dtype") is not None:
        raise CannotInfer("a view as another dtype")
    result = view_axes(context, context.axes(arguments["self"]), shape_of(node.meta["val"]))
    if arguments.get("other") is not None:
        context.broadcast([result, context.axes(arguments["other"])], len(result))
    return result


def view_axes(context: Inference, axes: list[Axis], sizes: list[Size]) -> list[Axis]:
    """Return the axes of a tensor with ``axes`` viewed with ``sizes``."""
    result: list[Axis | None] = [None] * len(sizes)
    old = [axis for axis in axes if not is_one(axis)]
    new = [i for i, size in enumerate(sizes) if not (isinstance(size, int) and size == 1)]
    for old_piece, new_piece in _aligned_pieces([size_of(axis) for axis in old], [sizes[i] for i in new]):
        inputs = old[slice(*old_piece)]
        outputs = new[slice(*new_piece)]
        for i, axis in zip(outputs, _regroup(context, inputs, [sizes[i] for i in outputs]), strict=True):
            result[i] = axis
    return [context.solver.leaf(1) if axis is None else axis for axis in result]


def _regroup(context: Inference, inputs: list[Axis], sizes: list[Size]) -> list[Axis]:
    """Return axes of ``sizes`` whose product is the product of ``inputs``."""
    if multiply(size_of(axis) for axis in inputs) != multiply(sizes):
        context.pin_all(inputs, "view whose sizes cannot be matched")
        return [context.solver.pinned(size, "view whose sizes cannot be matched") for size in sizes]
    if len(sizes) == 1:
        return inputs if len(inputs) == 1 else [product(inputs)]
    outputs = [context.solver.leaf(size) for size in sizes]
    context.unify(product(inputs), product(outputs))
    return outputs


def _aligned_pieces(old: list[Size], new: list[Size]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut two shapes into the shortest consecutive pieces of equal products; the last piece takes what is left."""
    pieces: list[tuple[tuple[int, int], tuple[int, int]]] = []
    old_ends = {multiply(old[: i + 1]): i + 1 for i in reversed(range(len(old)))}
    i = k = 0
    for end in range(1, len(new) + 1):
        reached = old_ends.get(multiply(new[:end]))
        if reached is not None and reached > i:
            pieces.append(((i, reached), (k, end)))
            i, k = reached, end
    if i < len(old) or k < len(new):
        pieces.append(((i, len(old)), (k, len(new))))
    return pieces


@resize(*VIEWS)
def resize_view(resizing: Resizing, node: fx.Node, arguments: Arguments) -> Any:
    """Become a reshape: whether a view is possible depends on strides, which kernels choose by size (attention)."""
    if arguments.get("dtype") is not None:
        return None
    operand, spelled = arguments["self"], arguments["size"] if "size" in arguments else arguments["shape"]
    arguments.clear()
    arguments.update(self=operand, shape=resizing.counts(spelled, resizing.axes(node)))
    return torch.ops.aten.reshape.default


@resize("unflatten")
def resize_unflatten(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    axes = resizing.axes(node)
    rank = len(resizing.axes(arguments["self"]))
    d = arguments["dim"] % rank
    arguments["sizes"] = resizing.counts(arguments["sizes"], axes[d : d + len(arguments["sizes"])])


@rule("permute")
def permute(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Axes in the given order"""
    axes = context.axes(arguments["self"])
    return [axes[d] for d in arguments["dims"]]


@rule("transpose", "swapaxes", "swapdims")
def transpose(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Two axes trade places"""
    axes = context.axes(arguments["self"])
    first, second = [value for name, value in arguments.items() if name != "self"]
    axes[first], axes[second] = axes[second], axes[first]
    return axes


@rule("t", "mT", "mH", "matrix_H", "adjoint", "numpy_T")
def matrix_transpose(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... n m -> ... m n (numpy_T: all axes reversed)"""
    axes = context.axes(arguments["self"])
    if "numpy_T" in str(node.target) or len(axes) <= 2:
        return axes[::-1]
    return [*axes[:-2], axes[-1], axes[-2]]


@rule("atleast_1d", "atleast_2d", "atleast_3d")
def at_least(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Axes of size 1 are added"""
    operand, value = next(iter(arguments.values())), node.meta["val"]
    if isinstance(value, (tuple, list)):
        pairs = zip(operand, value, strict=True)
        return [view_axes(context, context.axes(tensor), shape_of(result)) for tensor, result in pairs]
    return view_axes(context, context.axes(operand), shape_of(value))


@rule("movedim", "moveaxis")
def movedim(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Axes move to new positions, the others close ranks"""
    axes = context.axes(arguments["self"])
    tags = torch.empty(tuple(range(1, 1 + len(axes))), device="meta")
    moved = tags.movedim(arguments["source"], arguments["destination"])
    return [axes[tag - 1] for tag in moved.shape]


@rule("unsqueeze")
def unsqueeze(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """A new axis of size 1"""
    axes = context.axes(arguments["self"])
    d = arguments["dim"] % (len(axes) + 1)
    return [*axes[:d], context.solver.leaf(1), *axes[d:]]


def _squeezed(axes: list[Axis], arguments: Arguments) -> list[int]:
    return [d for d in dimensions(arguments.get("dim"), len(axes)) if is_one(axes[d])]


@rule("rot90")
def rotate(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R C ... -> ... C R ... (the plane of rotation is pinned)"""
    axes = context.axes(arguments["self"])
    first, second = arguments["dims"]
    context.pin_all([axes[first], axes[second]], "rotated by position")
    if arguments["k"] % 2:
        axes[first], axes[second] = axes[second], axes[first]
    return axes


@rule("squeeze")
def squeeze(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """Axes of size 1 vanish"""
    axes = context.axes(arguments["self"])
    gone = _squeezed(axes, arguments)
    for d in gone:
        context.pin(axes[d], "squeezed")
    return [axis for d, axis in enumerate(axes) if d not in gone]


@resize("squeeze")
def resize_squeeze(resizing: Resizing, node: fx.Node, arguments: Arguments) -> Any:
    """Name the squeezed axes: an axis may have *become* 1, and must stay."""
    operand = arguments["self"]
    gone = _squeezed(resizing.axes(operand), arguments)
    arguments.clear()
    arguments.update(self=operand, dim=gone)
    return torch.ops.aten.squeeze.dims


@rule("meshgrid")
def meshgrid(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """a, b, ... -> a b ..., a b ..., ... (with indexing "xy": b a ...)"""
    operands = [context.axes(operand) for operand in arguments["tensors"]]
    grid = [axes[0] if axes else context.solver.leaf(1) for axes in operands]
    if arguments.get("indexing") == "xy" and len(grid) > 1:
        grid[0], grid[1] = grid[1], grid[0]
    return [list(grid) for _ in operands]


@rule("flip", "fliplr", "flipud")
def flip(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... s ... -> ... s' ... (s' is s in reverse order)"""
    axes = context.axes(arguments["self"])
    implied = [1] if "fliplr" in str(node.target) else [0]
    for d in arguments.get("dims", implied):
        size = size_of(axes[d])
        if isinstance(size, int) and pin_of(axes[d]) is None:
            axes[d] = context.solver.gather(axes[d], np.arange(size)[::-1].copy())
        else:
            context.pin(axes[d], "reversed")
    return axes
