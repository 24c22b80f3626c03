"""Each user-style model loses half of every dimension, equals the masked original, and exports again."""

import numpy as np
import pytest
import torch

from graphprune.analysis import analyze
from graphprune.interpret import run_masked
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.random_models import redraw
from tests.user_models import USER_MODELS
from tests.zoo.check import relative_error


@pytest.mark.parametrize("name", USER_MODELS)
def test_half_of_every_dimension_goes(name):
    torch.manual_seed(0)
    model, inputs = USER_MODELS[name]()
    redraw(model)
    gm = trace(model, inputs)
    analysis = analyze(gm)
    assert not analysis.unknown_ops
    plan = analysis.plan({d.name: np.arange(d.size) % 2 == 0 for d in analysis.dimensions})
    small = shrink(gm, plan, analysis=analysis)
    with torch.no_grad():
        expected = run_masked(gm, analysis.typing, analysis.masks(plan), *inputs)
        assert relative_error(small(*inputs), expected) < 1e-5
    before, after = plan.cost["parameters"]
    assert after < 0.7 * before
    again = torch.export.export(small, inputs).module()
    assert relative_error(again(*inputs), small(*inputs)) < 1e-6


def test_what_sub_graphs_touch_stays_and_says_why():
    model, inputs = USER_MODELS["conditional"]()
    analysis = analyze(trace(model, inputs))
    reasons = {path: reason for path, _, reason in analysis.pins}
    assert "sub-graphs" in reasons["left.weight"]
    assert "sub-graphs" in reasons["right.bias"]
    assert {d.size for d in analysis.dimensions} == {12, 14}
