"""Products that sum over a shared axis: linear, matmul and their relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.axes import Axis, product
from graphprune.graph import op_name
from graphprune.rules.context import (
    CannotInfer,
    Inference,
    MaskedInputs,
    NewCall,
    Resizing,
    Typed,
    is_one,
    shape_of,
    tensor_nodes,
)
from graphprune.rules.equation import Equation, apply_equation, equation
from graphprune.rules.registry import Arguments, masked, resize, rule

equation("... i, o i, o -> ... o", "linear", family="contraction")
equation("n k, k m -> n m", "mm", family="contraction")
equation("n k, k -> n", "mv", family="contraction")
equation("k, k -> ", "dot", "vdot", family="contraction")
equation("n, m -> n m", "outer", "ger", family="contraction")
equation("... i, ... j, o i j, o -> ... o", "bilinear", family="contraction")


@rule("matmul", "linalg_matmul", "bmm")
def matmul(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... n k, ... k m -> ... n m (batch axes broadcast; vectors as in torch.matmul)"""
    left = context.axes(arguments["self"])
    right = context.axes(arguments["other"] if "other" in arguments else arguments["mat2"])
    return _matmul(context, left, right)


def _matmul(context: Inference, left: list[Axis], right: list[Axis]) -> list[Axis]:
    row = left[-2:-1]
    column = right[-1:] if len(right) > 1 else []
    context.unify(left[-1], right[-2] if len(right) > 1 else right[-1])
    batch_rank = max(len(left), len(right)) - 2
    batch = context.broadcast([left[:-2], right[:-2]], max(batch_rank, 0))
    context.role("head", batch)
    return [*batch, *row, *column]


@rule("addmm", "baddbmm", "addmv")
def add_matmul(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """..., ... n k, ... k m -> ... n m (the first operand broadcasts)"""
    names = {"mat1": "mat2", "batch1": "batch2", "mat": "vec"}
    first = next(name for name in names if name in arguments)
    result = _matmul(context, context.axes(arguments[first]), context.axes(arguments[names[first]]))
    return context.broadcast([result, context.axes(arguments["self"])], len(shape_of(node.meta["val"])))


@rule("addbmm")
def add_sum_of_products(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """..., b n k, b k m -> n m (the first operand broadcasts)"""
    (_, *result) = _matmul(context, context.axes(arguments["batch1"]), context.axes(arguments["batch2"]))
    return context.broadcast([result, context.axes(arguments["self"])], 2)


@rule("addr")
def add_outer(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """..., n, m -> n m (the first operand broadcasts)"""
    result = [*context.axes(arguments["vec1"]), *context.axes(arguments["vec2"])]
    return context.broadcast([result, context.axes(arguments["self"])], 2)


@rule("inner")
def inner(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... k, ... k -> ... ... (all axes of the first operand, then those of the second)"""
    left, right = context.axes(arguments["self"]), context.axes(arguments["other"])
    if not left or not right:
        return left or right
    context.unify(left[-1], right[-1])
    return [*left[:-1], *right[:-1]]


@rule("tensordot")
def tensordot(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... k ..., ... k ... -> ... ... (any number of contracted axes)"""
    left, right = context.axes(arguments["self"]), context.axes(arguments["other"])
    left_dims = [d % len(left) for d in arguments["dims_self"]]
    right_dims = [d % len(right) for d in arguments["dims_other"]]
    for i, j in zip(left_dims, right_dims, strict=True):
        if not is_one(left[i]) and not is_one(right[j]):
            context.unify(left[i], right[j])
    rest = [axis for d, axis in enumerate(left) if d not in left_dims]
    return rest + [axis for d, axis in enumerate(right) if d not in right_dims]


@rule("kron")
def kronecker(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """a ..., b ... -> (a b) ... (axis by axis, aligned at the right)"""
    left, right = context.axes(arguments["self"]), context.axes(arguments["other"])
    rank = max(len(left), len(right))
    left, right = ([context.solver.leaf(1)] * (rank - len(axes)) + axes for axes in (left, right))
    return [product([a, b]) for a, b in zip(left, right, strict=True)]


@rule("chain_matmul", "linalg_multi_dot")
def chain_of_products(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n k, k l, ..., l m -> n m (the first and the last may be vectors)"""
    matrices = arguments["matrices"] if "matrices" in arguments else arguments["tensors"]
    result = context.axes(matrices[0])
    for matrix in matrices[1:]:
        result = _matmul(context, result, context.axes(matrix))
    return result


@rule("einsum")
def einsum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """The op's own equation"""
    inputs, arrow, output = arguments["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        output = _implicit_result(inputs)
    parsed = Equation(tuple(_tokens(term) for term in terms), _tokens(output))
    result = apply_equation(context, parsed, [context.axes(operand) for operand in arguments["tensors"]])
    if "..." not in output:
        shared = [axis for letter, axis in zip(output, result, strict=True) if all(letter in term for term in terms)]
        context.role("head", shared)
    return result


def _implicit_result(inputs: str) -> str:
    """Return the result of an equation without one: batch axes, then the letters that occur once, sorted."""
    letters = sorted(letter for letter in set(inputs) - set(".,") if inputs.count(letter) == 1)
    return ("..." if "..." in inputs else "") + "".join(letters)


def _tokens(term: str) -> tuple[str, ...]:
    """Return the letters of one operand; capitals are ordinary letters here, so they get names of their own."""
    before, dots, after = term.partition("...")
    tokens = [*before, *([dots] if dots else []), *after]
    return tuple(f"{token.lower()}'" if token.isupper() else token for token in tokens)


GROUPED = ("transformers::grouped_mm_fallback", "_grouped_mm")
ALIGNMENT = 16
"""Bytes: ``_grouped_mm`` takes rows whose sizes are multiples of it."""


@rule(*GROUPED)
def grouped_mm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """T i, e i o, e -> T o (rows of the first operand belong to experts, up to e's offset)"""
    operands = tensor_nodes(arguments.values())
    if len(operands) != 3 or [len(context.axes(operand)) for operand in operands] != [2, 3, 1]:
        raise CannotInfer("a grouped matrix product other than rows times one matrix for each group")
    tokens, weights, offsets = (context.axes(operand) for operand in operands)
    context.unify(weights[0], offsets[0])
    if context.constant_value(operands[2]) is not None:
        context.pin(weights[0], "rows are assigned to experts by constant offsets")
    context.role("expert", [weights[0]])
    context.pin(tokens[0], "rows are assigned to experts by position")
    context.unify(tokens[1], weights[1])
    return [tokens[0], weights[2]]


@masked(*GROUPED)
def masked_grouped_mm(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    kept: list[Any] = [inputs.kept(operand) for operand in tensor_nodes(arguments.values())]
    target: Any = _row_groups if op_name(node) == "_grouped_mm" else node.target
    return target(*kept)


def _row_groups(rows: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the grouped product without the kernel's condition on sizes."""
    ends = offsets.tolist()
    pieces = [rows[start:end] @ weight for start, end, weight in zip([0, *ends], ends, weights, strict=False)]
    return torch.cat([*pieces, rows.new_zeros(len(rows) - ends[-1], weights.shape[2])])


@resize("_grouped_mm")
def resize_grouped_mm(resizing: Resizing, node: fx.Node, arguments: Arguments) -> Any:
    """Fill up sizes that the kernel does not take with zeros, and cut the result."""
    value = node.meta["val"]
    _, columns, width = (int(resizing.count(axis)) for axis in resizing.axes(arguments["mat2"]))
    unit = ALIGNMENT // value.element_size()
    more_columns, more_width = -columns % unit, -width % unit
    if not more_columns and not more_width:
        return None
    pad = torch.ops.aten.constant_pad_nd.default
    rows = NewCall(pad, (arguments["self"], [0, more_columns]))
    weights = NewCall(pad, (arguments["mat2"], [0, more_width, 0, more_columns]))
    padded = NewCall(node.target, (rows, weights, arguments["offs"]))
    arguments.clear()
    arguments.update(self=padded, dim=1, start=0, length=width)
    return torch.ops.aten.narrow.default
