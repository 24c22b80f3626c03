"""Rules as equations: ``"... i, o i, o -> ... o"``.

One term for each tensor argument of the op, in the order of its schema. A small letter is an axis, unified wherever
it appears; a capital is pinned; ``...`` is any number of axes, broadcast between operands. A letter that only the
result has is an error: an equation may not invent axes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from graphprune.axes import Axis
from graphprune.rules.context import Inference, Typed, is_one
from graphprune.rules.registry import Arguments, register


@dataclass(frozen=True)
class Equation:
    """A parsed equation: the tokens of each operand and of the result."""

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


def parse_equation(text: str) -> Equation:
    """Parse ``text``.

    Raises:
        ValueError: with the offending term, if the equation is malformed.
    """
    left, arrow, right = text.partition("->")
    if not arrow or "->" in right:
        raise ValueError(f"equation {text!r} needs exactly one '->'")
    operands = tuple(_parse_term(term, text) for term in left.split(","))
    result = _parse_term(right, text)
    known = {token for term in operands for token in term}
    unknown = [token for token in result if token not in known]
    if unknown:
        raise ValueError(f"equation {text!r}: {unknown[0]!r} is in the result but in no operand")
    return Equation(operands, result)


def _parse_term(term: str, text: str) -> tuple[str, ...]:
    tokens = tuple(term.split())
    for token in tokens:
        if token != "..." and not (len(token) == 1 and token.isalpha()):
            raise ValueError(f"equation {text!r}: {token!r} is neither a letter nor '...'")
    if tokens.count("...") > 1:
        raise ValueError(f"equation {text!r}: more than one '...' in {term.strip()!r}")
    return tokens


def equation(text: str, *ops: str, family: str) -> None:
    """Register the equation ``text`` as the rule of ``ops``."""
    parsed = parse_equation(text)

    def infer(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
        operands = [value for value in arguments.values() if isinstance(value, fx.Node) and value in context.types]
        return apply_equation(context, parsed, [context.axes(operand) for operand in operands])

    register(ops, family, text, infer)


def apply_equation(context: Inference, parsed: Equation, operands: list[list[Axis]]) -> list[Axis]:
    """Unify the axes of ``operands`` as ``parsed`` says and return the result's axes.

    Operands may be fewer than terms: optional arguments at the end may be missing.
    """
    letters: dict[str, Axis] = {}
    batches: list[list[Axis]] = []
    for tokens, axes in zip(parsed.operands, operands, strict=False):
        batch_rank = len(axes) - (len(tokens) - ("..." in tokens))
        position = 0
        for token in tokens:
            if token == "...":
                batches.append(axes[position : position + batch_rank])
                position += batch_rank
                continue
            axis = axes[position]
            position += 1
            if token.isupper():
                context.pin(axis, "indexed by position")
            _join(context, letters, token, axis)
    rank = max((len(batch) for batch in batches), default=0)
    batch = context.broadcast(batches, rank)
    result: list[Axis] = []
    for token in parsed.result:
        result += batch if token == "..." else [letters[token]]
    return result


def _join(context: Inference, letters: dict[str, Axis], token: str, axis: Axis) -> None:
    known = letters.get(token)
    if known is None or is_one(known):
        letters[token] = axis
    elif not is_one(axis):
        context.unify(known, axis)
