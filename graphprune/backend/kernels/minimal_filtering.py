"""Winograd's minimal filtering: several outputs of a short filter from fewer products than taps times outputs.

``F(m, r)`` computes m consecutive outputs of a filter with r taps from m + r - 1 inputs by m + r - 1 products: inputs,
taps and products are polynomials' values at as many points (one of them infinity), and outputs the coefficients of a
transposed product (Cook and Toom's construction). Applied to rows and columns it computes a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import splat

# Points -> the finite ones. Pairs +-p share half of their additions. For six, the usual 0, +-1, +-2 lose three
# times as much to rounding (4.9e-6 against 1.5e-6 of the largest output in float32, tiles of 4x4, 256 channels).
_POINTS = {
    1: (),
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    5: (Fraction(1, 2), Fraction(-1, 2), Fraction(5, 4), Fraction(-5, 4)),
    6: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}


@dataclass(frozen=True)
class Filtering:
    """``F(outputs, taps)``: outputs = output_matrix @ ((tap_matrix @ taps) * (input_matrix @ inputs)), in float64."""

    outputs: int
    taps: int
    output_matrix: np.ndarray
    tap_matrix: np.ndarray
    input_matrix: np.ndarray

    @property
    def points(self) -> int:
        """Products, and inputs, of one application."""
        return self.outputs + self.taps - 1


def has_filtering(points: int, taps: int) -> bool:
    """Say whether there is an algorithm with so many ``points`` that saves products for a filter of ``taps``."""
    return points in _POINTS and 2 <= taps < points


@cache
def filtering(points: int, taps: int) -> Filtering:
    """Return the algorithm of ``points`` products for ``taps``; for a single tap the trivial one, of one product."""
    finite = _POINTS[1 if taps == 1 else points]
    outputs = len(finite) + 2 - taps
    tap_rows = [[point**j for j in range(taps)] for point in finite] + [_unit(taps)]
    output_rows = [[point**i for point in finite] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    input_rows = []
    for i, point in enumerate(finite):
        others = finite[:i] + finite[i + 1 :]
        # The Lagrange polynomial's denominator goes to the taps, whose transform costs nothing at run time.
        scale = math.prod((point - other for other in others), start=Fraction(1))
        input_rows.append([*_product_of_roots(others), Fraction(0)])
        tap_rows[i] = [value / scale for value in tap_rows[i]]
    input_rows.append(_product_of_roots(finite))
    return Filtering(outputs, taps, *(_array(rows) for rows in (output_rows, tap_rows, input_rows)))


def _unit(size: int) -> list[Fraction]:
    return [Fraction(0)] * (size - 1) + [Fraction(1)]


def _product_of_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients, lowest power first, of the product of ``x - root``."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _array(rows: Sequence[Sequence[Fraction]]) -> np.ndarray:
    return np.array([[float(value) for value in row] for row in rows])


def combined(matrix: np.ndarray, vectors: Sequence, lanes: int) -> list:
    """Emit the products of ``matrix`` [rows, columns] with ``vectors``, one for each column, and return the rows.

    Two rows, or two columns, that differ in signs only, as those of points p and -p do, share their sums.
    """
    matrix, held = _paired_columns(matrix, [T.Bind(vector) for vector in vectors])
    results: dict[int, Any] = {}
    for i, row in enumerate(matrix):
        if i in results:
            continue
        twin = _twin(matrix, i)
        same = row != 0 if twin is None else (row != 0) & (matrix[twin] == row)
        results[i] = _weighted_sum(row, same, held, lanes)
        if twin is not None:
            even, odd = results[i], _weighted_sum(row, (row != 0) & ~same, held, lanes)
            results[i], results[twin] = T.Bind(even + odd), T.Bind(even - odd)
    return [results[i] for i in range(len(matrix))]


def _paired_columns(matrix: np.ndarray, vectors: list) -> tuple[np.ndarray, list]:
    """Replace two columns that differ in signs only by those of the sum and the difference of their vectors."""
    columns, held, done = [], [], set()
    for j, column in enumerate(matrix.T):
        if j in done:
            continue
        twin = _twin(matrix.T, j)
        if twin is None:
            columns.append(column)
            held.append(vectors[j])
            continue
        done.add(twin)
        same = column == matrix[:, twin]
        columns += [np.where(same, column, 0.0), np.where(same, 0.0, column)]
        held += [T.Bind(vectors[j] + vectors[twin]), T.Bind(vectors[j] - vectors[twin])]
    return np.array(columns).T, held


def _twin(rows: Any, i: int) -> int | None:
    """Return which later row equals row ``i`` but for some, not all, of its signs."""
    for k in range(i + 1, len(rows)):
        same = rows[k] == rows[i]
        if (abs(rows[k]) == abs(rows[i])).all() and (same & (rows[i] != 0)).any() and not same.all():
            return k
    return None


def _weighted_sum(row: np.ndarray, chosen: np.ndarray, vectors: Sequence, lanes: int):
    """Emit the sum of the ``chosen`` vectors, weighted by ``row``; those of weight 1 come first."""
    total = None
    columns = [j for j in range(len(row)) if chosen[j]]
    for j in sorted(columns, key=lambda j: row[j] != 1):
        term = vectors[j] if abs(row[j]) == 1 else vectors[j] * splat(float(abs(row[j])), lanes)
        if total is None:
            total = term if row[j] > 0 else splat(0.0, lanes) - term
        else:
            total = total + term if row[j] > 0 else total - term
    return T.Bind(total)
