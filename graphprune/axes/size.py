"""Sizes of axes: plain integers, or sympy expressions where a dimension is dynamic."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import sympy

Size = int | sympy.Expr
_SAMPLES = 64


def size_from(value: Any) -> Size:
    """Return a ``torch.SymInt`` or ``int`` as a size, an integer wherever the value is known."""
    node = getattr(value, "node", None)
    if node is None:
        return int(value)
    return _simplify(node.expr)


def multiply(sizes: Iterable[Size]) -> Size:
    """Return the product of ``sizes`` (1 if there are none)."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result if isinstance(result, int) else _simplify(result)


def exact_quotient(size: Size, divisor: Size) -> Size | None:
    """Return ``size / divisor`` if it is a whole number (for every value of the symbols), else None."""
    if isinstance(size, int) and isinstance(divisor, int):
        return size // divisor if divisor and size % divisor == 0 else None
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.sympify(size) / divisor))
    return _simplify(numerator) if denominator == 1 else None


def same_size(a: Size, b: Size) -> bool:
    """Say whether two sizes are equal for every value of their symbols.

    Sizes that are rounded down have many forms, ``(32*s - 1)//64`` and ``(s - 1)//2``, which sympy does not bring
    together: those are compared at sample values, of which one is enough to tell different sizes apart.
    """
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    left, right = (sympy.Integer(size) if isinstance(size, int) else size for size in (a, b))
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    draw = random.Random(0)
    points = ([(symbol, draw.randint(2, 1000)) for symbol in symbols] for _ in range(_SAMPLES))
    return all(left.subs(point) == right.subs(point) for point in points)


def _simplify(expression: Any) -> Size:
    expanded = sympy.expand(expression)
    return int(expanded) if expanded.is_Integer else expanded
