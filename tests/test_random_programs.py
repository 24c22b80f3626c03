"""Random models, random masks on every dimension: the smaller graph equals the masked original and exports again."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx
from torch.export import Dim

from graphprune.analysis import Analysis, analyze
from graphprune.interpret import run_masked
from graphprune.plans import Plan
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.random_models import random_model

TOLERANCE = 1e-9  # in double precision, relative to the largest output


def random_plan(analysis: Analysis, seed: int) -> Plan:
    rng = np.random.default_rng(seed)
    keep = {}
    for dimension in analysis.dimensions:
        mask = rng.random(dimension.size) < rng.choice([0.3, 0.6, 0.9, 1.0])
        mask[rng.integers(dimension.size)] = True
        keep[dimension.name] = mask
    return analysis.plan(keep)


def check(model: torch.nn.Module, gm: fx.GraphModule, x: torch.Tensor, seed: int) -> fx.GraphModule:
    with torch.no_grad():
        torch.testing.assert_close(gm(x), model(x))
        analysis = analyze(gm)
        assert not analysis.unknown_ops
        plan = random_plan(analysis, seed)
        small = shrink(gm, plan, analysis=analysis)
        actual = small(x)
        expected = run_masked(gm, analysis.typing, analysis.masks(plan), x)
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE, f"seed {seed}: differs by {error:.1e}\n{plan}"
    removed = any(choice.removed for choice in plan.choices)
    assert not removed or plan.cost["parameters"][1] < plan.cost["parameters"][0]
    assert sum(p.numel() for p in small.parameters()) == plan.cost["parameters"][1]
    return small


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_static(seed):
    model, x = random_model(seed)
    small = check(model, trace(model, (x,)), x, seed)
    if seed % 3 == 0:
        exported = torch.export.export(small, (x,)).module()
        torch.testing.assert_close(exported(x), small(x))


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_dynamic_batch(seed):
    model, x = random_model(seed, length=4)
    gm = trace(model, (x,), dynamic_shapes=({0: Dim("batch", min=2, max=64)},))
    small = check(model, gm, x, seed)
    other = torch.cat([x, x[:1] * 2])
    with torch.no_grad():
        torch.testing.assert_close(small(other)[:2], small(x))
    if seed % 3 == 0:
        torch.export.export(small, (x,), dynamic_shapes=({0: Dim("batch", min=2, max=64)},))


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_shrinking_twice(seed):
    """A shrunk graph is a graph like any other."""
    model, x = random_model(seed, length=random.Random(seed).randint(2, 4))
    once = check(model, trace(model, (x,)), x, seed)
    check(once, once, x, seed + 1)
