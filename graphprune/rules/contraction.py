"""Products that sum over a shared axis: linear, matmul and their relatives."""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis
from graphprune.rules.context import CannotInfer, Inference, Typed, shape_of
from graphprune.rules.equation import Equation, apply_equation, equation
from graphprune.rules.registry import Arguments, rule

equation("... i, o i, o -> ... o", "linear", family="contraction")
equation("n k, k m -> n m", "mm", family="contraction")
equation("n k, k -> n", "mv", family="contraction")
equation("k, k -> ", "dot", "vdot", family="contraction")
equation("n, m -> n m", "outer", "ger", family="contraction")


@rule("matmul", "bmm")
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


@rule("einsum")
def einsum(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """The op's own equation; an implicit result or a letter repeated within one operand is not covered."""
    inputs, arrow, output = arguments["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or any(len(set(_letters(term))) != len(_letters(term)) for term in terms):
        raise CannotInfer("implicit result or repeated letter in an einsum equation")
    parsed = Equation(tuple(_tokens(term) for term in terms), _tokens(output))
    result = apply_equation(context, parsed, [context.axes(operand) for operand in arguments["tensors"]])
    if "..." not in output:
        shared = [axis for letter, axis in zip(output, result, strict=True) if all(letter in term for term in terms)]
        context.role("head", shared)
    return result


def _letters(term: str) -> str:
    return term.replace("...", "")


def _tokens(term: str) -> tuple[str, ...]:
    """Return the letters of one operand; capitals are ordinary letters here, so they get names of their own."""
    before, dots, after = term.partition("...")
    tokens = [*before, *([dots] if dots else []), *after]
    return tuple(f"{token.lower()}'" if token.isupper() else token for token in tokens)


@rule("transformers::grouped_mm_fallback")
def grouped_mm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """t i, E i o, E -> t o (rows of the first operand are assigned to experts by offsets)"""
    tokens, weights, offsets = (context.axes(operand) for operand in arguments.values() if isinstance(operand, fx.Node))
    context.pin(weights[0], "rows are assigned to experts by position")
    context.pin_all(offsets, "offsets of experts")
    context.pin(tokens[0], "rows are assigned to experts by position")
    context.unify(tokens[-1], weights[-2])
    return [*tokens[:-1], weights[-1]]


@rule("_grouped_mm")
def aligned_grouped_mm(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """T I, E I O, E -> T O (pinned: the kernel demands strides of whole 16 bytes, which odd counts would break)"""
    for operand in arguments.values():
        if isinstance(operand, fx.Node):
            context.pin_all(context.axes(operand), "grouped matrix product over aligned strides")
    return context.constant(node.meta["val"], "grouped matrix product over aligned strides")
