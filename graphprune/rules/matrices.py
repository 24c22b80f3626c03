"""Matrices as matrices: diagonals, triangles, decompositions. Rows and columns are tied or pinned, batches pass."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.axes import Axis, Size, size_of
from graphprune.rules.context import CannotInfer, Inference, MaskedInputs, Typed, shape_of, tensor_nodes
from graphprune.rules.equation import equation
from graphprune.rules.registry import Arguments, masked, rule

equation("... n n -> ... n n", "matrix_exp", "linalg_matrix_exp", family="matrices")

FACTORIZATIONS = """
linalg_cholesky linalg_cholesky_ex linalg_cond linalg_det linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh
linalg_householder_product linalg_inv linalg_inv_ex linalg_ldl_factor linalg_ldl_factor_ex linalg_lu linalg_lu_factor
linalg_lu_factor_ex linalg_matrix_power linalg_matrix_rank linalg_matrix_sqrth linalg_pinv linalg_polar linalg_qr
linalg_slogdet linalg_svd linalg_svdvals det slogdet logdet inverse pinverse matrix_power svd geqrf
cholesky_inverse _lu_with_info lu_unpack _linalg_svd _linalg_det _linalg_slogdet _linalg_eigh
""".split()

TRIANGLES = {"tril": (0, -1), "triu": (0, 1)}
"""Diagonals for which a triangle asks only whether a row comes before a column, not by how much."""


@rule(*FACTORIZATIONS)
def factorization(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... R C -> ... (matrices are pinned, batches of them pass)"""
    reason = f"taken apart as a matrix by {node.target}"
    operands = [context.axes(operand) for operand in tensor_nodes(arguments.values())]
    batch = operands[0][:-2]
    context.pin_all([axis for axes in operands for axis in axes[-2:]], reason)
    if any(len(axes) != len(operands[0]) for axes in operands):
        context.pin_all([axis for axes in operands for axis in axes], reason)
    for axes in operands[1:]:
        context.broadcast([batch, axes[:-2]], max(len(batch), len(axes) - 2))
    sizes = [size_of(axis) for axis in batch]

    def typed(value: object) -> list[Axis]:
        shape = shape_of(value)
        if shape[: len(sizes)] != sizes:
            context.pin_all(batch, reason)
            return context.constant(value, reason)
        return [*batch, *(context.solver.pinned(size, reason) for size in shape[len(sizes) :])]

    value = node.meta["val"]
    return [typed(item) for item in value] if isinstance(value, (tuple, list)) else typed(value)


@masked(*FACTORIZATIONS)
def masked_factorization(inputs: MaskedInputs, node: fx.Node, arguments: Arguments) -> Any:
    """Leave removed matrices out: most of these ops refuse matrices of zeros."""
    return inputs.call(node)


@rule("tril", "triu")
def triangle(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... n n -> ... n n (other shapes and far diagonals pin both axes)"""
    axes = context.axes(arguments["self"])
    near = TRIANGLES["tril" if "tril" in str(node.target) else "triu"]
    if arguments["diagonal"] in near and size_of(axes[-2]) == size_of(axes[-1]):
        context.unify(axes[-2], axes[-1])
    else:
        context.pin_all(axes[-2:], "row and column positions matter")
    return axes


def _take_diagonal(context: Inference, axes: list[Axis], offset: int, first: int, second: int, length: Size) -> Axis:
    """Return the axis of a diagonal: that of rows and columns alike if the matrix is square, else a pinned one."""
    rows, columns = axes[first], axes[second]
    if offset == 0 and size_of(rows) == size_of(columns):
        context.unify(rows, columns)
        return rows
    context.pin_all([rows, columns], "diagonal of a matrix")
    return context.solver.pinned(length, "diagonal of a matrix")


@rule("diagonal", "linalg_diagonal")
def diagonal(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... n n -> ... n (other shapes and diagonals pin both axes)"""
    axes = context.axes(arguments["self"] if "self" in arguments else arguments["A"])
    first, second = arguments["dim1"] % len(axes), arguments["dim2"] % len(axes)
    length = shape_of(node.meta["val"])[-1]
    taken = _take_diagonal(context, axes, arguments["offset"], first, second, length)
    return [*(axis for d, axis in enumerate(axes) if d not in (first, second)), taken]


@rule("trace")
def trace(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n n -> (other shapes pin both axes; zeros add nothing)"""
    _take_diagonal(context, context.axes(arguments["self"]), 0, 0, 1, 1)
    return []


@rule("diag_embed")
def diag_embed(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... n -> ... n n (other diagonals pin the axis)"""
    *batch, axis = context.axes(arguments["self"])
    return _embed(context, node, batch, axis, arguments["offset"], arguments["dim1"], arguments["dim2"])


@rule("diag", "diagflat")
def diag(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n -> n n, and back (other shapes and diagonals pin the axes)"""
    axes = context.axes(arguments["self"])
    offset = arguments["diagonal"] if "diagonal" in arguments else arguments["offset"]
    if len(axes) == 1:
        return _embed(context, node, [], axes[0], offset, 0, 1)
    if "diagflat" in str(node.target):
        raise CannotInfer("diagonal matrix of a flattened tensor")
    return [_take_diagonal(context, axes, offset, 0, 1, shape_of(node.meta["val"])[0])]


def _embed(
    context: Inference, node: fx.Node, batch: list[Axis], axis: Axis, offset: int, first: int, second: int
) -> list[Axis]:
    rank = len(batch) + 2
    places = {first % rank, second % rank}
    if offset != 0:
        context.pin(axis, "off-diagonal of a matrix")
        size = shape_of(node.meta["val"])[first]
        axis = context.solver.pinned(size, "off-diagonal of a matrix")
    others = iter(batch)
    return [axis if d in places else next(others) for d in range(rank)]
