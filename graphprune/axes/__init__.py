"""The algebra of axes: what every axis of every tensor is made of, and which axes are one and the same.

    axis := Leaf(n)                   n channels nobody has looked inside yet
          | Product(axis, axis, ...)  row-major product: view, flatten, heads, groups
          | Sum(axis, axis, ...)      direct sum: cat, split, chunk, slice
          | Gathered(axis, positions) elements at constant positions: a permutation, a subset, repetitions

Types are refined by unification, as in Hindley-Milner inference: see :class:`AxisSolver`.
"""

from graphprune.axes.axis import (
    Axis,
    Kind,
    Pin,
    direct_sum,
    factors,
    known_size,
    leaves,
    pin_of,
    product,
    resolve,
    size_of,
    terms,
)
from graphprune.axes.coordinates import Presence, coordinates, presence
from graphprune.axes.masks import Fibre, KeepMasks, Selection
from graphprune.axes.projection import project
from graphprune.axes.size import Size, exact_quotient, multiply, same_size, size_from
from graphprune.axes.solver import AxisSolver

__all__ = [
    "Axis",
    "AxisSolver",
    "Fibre",
    "KeepMasks",
    "Kind",
    "Pin",
    "Presence",
    "Selection",
    "Size",
    "coordinates",
    "direct_sum",
    "exact_quotient",
    "factors",
    "known_size",
    "leaves",
    "multiply",
    "pin_of",
    "presence",
    "product",
    "project",
    "resolve",
    "same_size",
    "size_from",
    "size_of",
    "terms",
]
