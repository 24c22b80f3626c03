"""Every rule against its op: remove random units and compare with the op on the original, masked operands.

Two references: the masked interpreter, and (where no statistic is involved) the original program with the removed
elements of its parameters set to zero, which does not use graphprune's interpreter at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from graphprune.analysis import Analysis, analyze
from graphprune.axes import KeepMasks
from graphprune.graph import propagate_fake, set_attribute
from graphprune.interpret import run_masked
from graphprune.rules import supported_ops
from graphprune.rules.registry import rule_name
from graphprune.shrink import shrink
from tests.rules.op_cases import CASES, Case

_DATA = "the shape of the result depends on values, which nothing but torch.export can trace"
WITHOUT_CASE = {
    **dict.fromkeys(["aten::nonzero", "aten::_unique2", "aten::unique_dim", "aten::bincount"], _DATA),
    **dict.fromkeys(["aten::item", "aten::_local_scalar_dense"], "the result is a number"),
    "transformers::grouped_mm_fallback": "needs transformers, and is the same as aten::_grouped_mm",
}

_SEEN: set[str] = set()


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
            result = aten._to_copy.default(result, dtype=torch.float64)
            total = aten.add.Tensor(aten.sum.default(aten.mul.Tensor(result, getattr(self, f"weight{i}"))), total)
        return total


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True


def trace(case: Case) -> fx.GraphModule:
    """Trace without torch.export, which would decompose many of the ops."""
    program = Program(case)
    gm = fx.GraphModule(program, _Tracer().trace(program))
    propagate_fake(gm)
    return gm


def random_masks(analysis: Analysis, seed: int, least: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = {}
    for dimension in analysis.dimensions:
        masks[dimension.name] = rng.random(dimension.size) < 0.6
        masks[dimension.name][rng.permutation(dimension.size)[:least]] = True
    return masks


def zeroed(gm: fx.GraphModule, analysis: Analysis, masks: KeepMasks) -> fx.GraphModule:
    result = fx.GraphModule(gm, gm.graph)
    for path, axes in analysis.typing.attributes.items():
        value = getattr(gm, path).detach().clone()
        for d, axis in enumerate(axes):
            mask = masks.mask(axis)
            if mask is not None:
                value.index_fill_(d, torch.from_numpy(np.flatnonzero(~mask)), 0)
        set_attribute(result, path, nn.Parameter(value) if isinstance(getattr(gm, path), nn.Parameter) else value)
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    gm = trace(case)
    _SEEN.update(rule_name(node) for node in gm.graph.nodes if node.op == "call_function")
    analysis = analyze(gm)
    assert sum(dimension.size for dimension in analysis.dimensions) == case.free, str(analysis)
    for seed in range(2):
        plan = analysis.plan(random_masks(analysis, seed, case.least))
        small = shrink(gm, plan, analysis=analysis)
        with torch.no_grad():
            actual = small()
            if case.random:
                continue
            masks = analysis.masks(plan)
            torch.testing.assert_close(actual, run_masked(gm, analysis.typing, masks), rtol=1e-6, atol=1e-9)
            if case.zeros_agree:
                torch.testing.assert_close(actual, zeroed(gm, analysis, masks)(), rtol=1e-6, atol=1e-9)


def test_every_registered_op_has_a_case():
    """A ratchet: a new rule comes with a case, or with a reason in WITHOUT_CASE."""
    if len(_SEEN) < 50:
        pytest.skip("needs the cases of this file to have run before")
    missing = {rule.op for rule in supported_ops()} - _SEEN - set(WITHOUT_CASE)
    assert not missing
    assert not set(WITHOUT_CASE) & _SEEN, "these have a case now"
