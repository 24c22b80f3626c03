"""The oracle for op rules: ``slice(op(x)) == op(slice(x))``, for random shapes and consistent choices of kept units.

Two references: the masked interpreter, and (where no statistic is involved) the original program with the removed
elements of its parameters set to zero, which does not use graphprune's interpreter at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import fx, nn

from graphprune.analysis import Analysis, analyze
from graphprune.axes import KeepMasks
from graphprune.errors import MaskError
from graphprune.graph import set_attribute
from graphprune.interpret import run_masked
from graphprune.propagation import propagate_fake
from graphprune.shrink import shrink
from tests.rules.cases.base import Case, Operand

Masks = dict[str, np.ndarray]


class Program(nn.Module):
    """Calls the case's op and reduces its results to one number, weighted by parameters."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        generator = torch.Generator().manual_seed(0)
        for i, operand in enumerate(case.operands):
            if isinstance(operand, torch.Tensor):
                self.register_buffer(f"operand{i}", operand.clone())
            else:
                values = torch.rand(operand, dtype=torch.float64, generator=generator)
                self.register_parameter(f"operand{i}", nn.Parameter(0.1 + 0.8 * values + case.offset))
        with torch.no_grad():
            for i, result in enumerate(self._results()):
                weight = torch.randn(result.shape, dtype=torch.float64, generator=generator)
                self.register_parameter(f"weight{i}", nn.Parameter(weight))

    def _results(self) -> list[Any]:
        results = self.case.function(*(getattr(self, f"operand{i}") for i in range(len(self.case.operands))))
        return list(results) if isinstance(results, (list, tuple)) else [results]

    def forward(self) -> Any:
        aten = torch.ops.aten
        total = 0.0
        for i, result in enumerate(self._results()):
            if not self.case.complex_results:
                result = aten._to_copy.default(result, dtype=torch.float64)
            product = aten.mul.Tensor(result, getattr(self, f"weight{i}"))
            if self.case.complex_results:
                product = aten.abs.default(product)
            total = aten.add.Tensor(aten.sum.default(product), total)
        return total


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True


def trace(case: Case) -> fx.GraphModule:
    """Trace without torch.export, which would decompose many of the ops."""
    program = Program(case)
    gm = fx.GraphModule(program, _Tracer().trace(program))
    propagate_fake(gm)
    return gm


def at_random_shapes(case: Case, seed: int) -> Case | None:
    """Return the case with larger shapes, or None if its arguments spell sizes that would no longer fit.

    Equal sizes stay equal and divisible ones divisible: each distinct size gets a factor of its own, or else all get
    the same one.
    """
    rng = np.random.default_rng(seed)
    sizes = sorted({size for operand in case.operands if isinstance(operand, tuple) for size in operand if size > 1})
    independent = {size: int(rng.integers(1, 4)) for size in sizes}
    for factors in (independent, dict.fromkeys(sizes, 2)):
        scaled = replace(case, operands=tuple(_scale(operand, factors) for operand in case.operands))
        if scaled.operands != case.operands and runs(scaled):
            return scaled
    return None


def _scale(operand: Operand, factors: dict[int, int]) -> Operand:
    if isinstance(operand, torch.Tensor):
        return operand
    return tuple(size * factors.get(size, 1) for size in operand)


def runs(case: Case) -> bool:
    """Say whether the case's function accepts its operands."""
    try:
        Program(case)
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def choices(analysis: Analysis, least: int, limit: int, seed: int = 0) -> Iterator[Masks]:
    """Yield choices of kept units: every one if there are no more than ``limit``, else random ones."""
    dimensions = analysis.dimensions
    if math.prod(2**dimension.size for dimension in dimensions) <= limit:
        options = [
            [np.array(bits) for bits in itertools.product([False, True], repeat=d.size) if sum(bits) >= least]
            for d in dimensions
        ]
        for chosen in itertools.product(*options):
            yield {d.name: mask for d, mask in zip(dimensions, chosen, strict=True)}
        return
    rng = np.random.default_rng(seed)
    for _ in range(limit):
        masks = {}
        for dimension in dimensions:
            masks[dimension.name] = rng.random(dimension.size) < 0.6
            masks[dimension.name][rng.permutation(dimension.size)[:least]] = True
        yield masks


def check(case: Case, limit: int) -> Analysis:
    """Compare the shrunk program with both references for up to ``limit`` choices of kept units.

    Raises AssertionError where they differ or where every choice is refused, and whatever inference or shrinking
    raises, but for the refusals that the case expects.
    """
    gm = trace(case)
    analysis = analyze(gm)
    compared = 0
    for masks in choices(analysis, case.least, limit):
        # after the first, running the shrunk program finds wrong shapes too, much quicker than the self-check
        without_self_check = mock.patch("graphprune.shrink._check_shapes") if compared else nullcontext()
        try:
            with without_self_check:
                check_choice(case, gm, analysis, masks)
            compared += 1
        except MaskError as error:
            if not case.refuses or case.refuses not in str(error):
                raise
    assert compared, f"all choices are refused: {case.refuses}"
    return analysis


def check_choice(case: Case, gm: fx.GraphModule, analysis: Analysis, keep: Masks) -> None:
    """Compare for one choice."""
    plan = analysis.plan(keep)
    small = shrink(gm, plan, analysis=analysis)
    with torch.no_grad():
        actual = small()
        if case.random:
            return
        masks = analysis.masks(plan)
        exact = 1e-2 if case.rounded else 1e-6
        torch.testing.assert_close(actual, run_masked(gm, analysis.typing, masks), rtol=exact, atol=1e-9)
        if case.zeros_agree:
            torch.testing.assert_close(actual, zeroed(gm, analysis, masks)(), rtol=1e-6, atol=1e-9)


def zeroed(gm: fx.GraphModule, analysis: Analysis, masks: KeepMasks) -> fx.GraphModule:
    """Return the program with the removed elements of its parameters and buffers set to zero."""
    result = fx.GraphModule(gm, gm.graph)
    for path, axes in analysis.typing.attributes.items():
        value = getattr(gm, path).detach().clone()
        for d, axis in enumerate(axes):
            mask = masks.mask(axis)
            if mask is not None:
                value.index_fill_(d, torch.from_numpy(np.flatnonzero(~mask)), 0)
        set_attribute(result, path, nn.Parameter(value) if isinstance(getattr(gm, path), nn.Parameter) else value)
    return result
