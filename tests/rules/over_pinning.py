"""Finds axes that a rule pins although removing some of their elements commutes with the op, by trying.

Removing elements commutes if the op on the smaller operands gives a slice of the op on the zeroed ones, on several
draws. Tried are, for each operand axis that is pinned: every single element, aligned blocks, and residue classes, alone
and together with the same elements of other axes of equal size. Ops whose arguments spell sizes fail on
smaller operands and so are not judged; those arguments are what ``resize`` faces are for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from graphprune.analysis import analyze
from graphprune.axes import Axis, Kind, known_size, resolve
from tests.rules.cases.base import Case
from tests.rules.oracle import trace

Place = tuple[int, int]
"""Operand and axis."""

DRAWS = 4
MOST_TIES = 3


def over_pinned(case: Case) -> set[Place]:
    """Return the pinned operand axes of which elements could go."""
    found: set[Place] = set()
    if not case.judged:
        return found
    typing = analyze(trace(case)).typing
    for i in range(len(case.operands)):
        for d, axis in enumerate(typing.attributes.get(f"operand{i}", [])):
            pinned = _pinned_elements(axis)
            if pinned.size > 1 and pinned.any() and _something_commutes(case, (i, d), pinned):
                found.add((i, d))
    return found


def _pinned_elements(axis: Axis) -> np.ndarray:
    """Return for each element whether nothing it is made of can go."""
    axis = resolve(axis)
    if axis.kind is Kind.LEAF:
        return np.full(known_size(axis), axis.pin is not None)
    parts = [_pinned_elements(part) for part in axis.parts]
    if axis.kind is Kind.SUM:
        return np.concatenate(parts)
    result = parts[0]
    for part in parts[1:]:
        result = np.logical_and.outer(result, part).ravel()
    return result


def _something_commutes(case: Case, place: Place, pinned: np.ndarray) -> bool:
    draws = [_draw(case, seed) for seed in range(DRAWS)]
    size = len(pinned)
    equal = [
        (i, d)
        for i, operand in enumerate(draws[0])
        for d, other in enumerate(operand.shape)
        if other == size and (i, d) != place
    ][:MOST_TIES]
    families = _families(size) if pinned.all() else [[[e]] for e in np.flatnonzero(pinned).tolist()]
    for ties in _subsets(equal):
        places = [place, *ties]
        for family in families:
            if all(_commutes(case, draw, places, removed) for removed in family for draw in draws):
                return True
    return False


def _families(size: int) -> Iterator[list[list[int]]]:
    """Yield ways to cut an axis into removable pieces: single elements, blocks, residue classes."""
    yield [[e] for e in range(size)]
    for count in (n for n in range(2, size) if size % n == 0):
        grid = np.arange(size).reshape(count, -1)
        yield grid.tolist()
        yield grid.T.tolist()


def _subsets(places: list[Place]) -> Iterator[tuple[Place, ...]]:
    for count in range(len(places) + 1):
        yield from itertools.combinations(places, count)


def _draw(case: Case, seed: int) -> list[torch.Tensor]:
    """Return operands: positive values for even seeds, values of both signs for odd ones."""
    generator = torch.Generator().manual_seed(seed)
    operands = []
    for operand in case.operands:
        if isinstance(operand, torch.Tensor):
            operands.append(operand)
            continue
        values = torch.rand(operand, dtype=torch.float64, generator=generator) + 0.1 + case.offset
        sign = torch.randint(0, 2, operand, generator=generator) * 2 - 1 if seed % 2 else 1
        operands.append(values * sign)
    return operands


def _commutes(case: Case, operands: Sequence[torch.Tensor], places: list[Place], removed: list[int]) -> bool:
    small, zeroed = list(operands), list(operands)
    gone = torch.tensor(removed)
    for i, d in places:
        kept = torch.tensor([e for e in range(operands[i].shape[d]) if e not in removed])
        small[i] = small[i].index_select(d, kept)
        zeroed[i] = zeroed[i].index_fill(d, gone, 0)
    try:
        few, many = _results(case, small), _results(case, zeroed)
    except (RuntimeError, IndexError, ValueError):
        return False
    return len(few) == len(many) and all(_is_slice(a, b, removed) for a, b in zip(few, many, strict=True))


def _results(case: Case, operands: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        results = case.function(*operands)
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _is_slice(few: torch.Tensor, many: torch.Tensor, removed: list[int]) -> bool:
    """Say whether ``few`` is ``many`` with some positions left out, the same ones along all axes that got shorter."""
    shorter = [d for d in range(many.dim()) if few.dim() == many.dim() and few.shape[d] < many.shape[d]]
    if few.dim() != many.dim() or any(few.shape[d] > many.shape[d] for d in range(many.dim())):
        return False
    if len(shorter) == 1:
        return _is_subsequence(few.movedim(shorter[0], 0), many.movedim(shorter[0], 0))
    for d in shorter:
        kept = torch.tensor([e for e in range(many.shape[d]) if e not in removed])
        if len(kept) != few.shape[d]:
            return False
        many = many.index_select(d, kept)
    return _same(few, many)


def _is_subsequence(few: torch.Tensor, many: torch.Tensor) -> bool:
    rows = iter(many)
    return all(any(_same(row, other) for other in rows) for row in few)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
