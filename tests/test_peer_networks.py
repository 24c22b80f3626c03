"""Every topology that other pruning libraries test: cut at random, it must equal the masked original."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from graphprune.analysis import Analysis, analyze
from graphprune.interpret import run_masked
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.peer_networks import NETWORKS
from tests.zoo.check import relative_error
from tests.zoo.models import redraw_constants


def random_masks(analysis: Analysis, rng: np.random.Generator, share: float | None) -> Mapping[str, np.ndarray]:
    """Return keep-masks that keep ``share`` of every dimension, or a random number of units of each."""
    masks = {}
    for dimension in analysis.dimensions:
        size = dimension.size
        count = int(rng.integers(1, size + 1)) if share is None else max(1, round(size * share))
        masks[dimension.name] = np.isin(np.arange(size), rng.permutation(size)[:count])
    return masks


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_network_equals_masked_original(name: str):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    args: tuple[Any, ...] = tuple(NETWORKS[name].inputs())  # type: ignore[attr-defined]
    redraw_constants(model)
    gm = trace(model, args)
    analysis = analyze(gm)
    with torch.no_grad():
        assert relative_error(gm(*args), model(*args)) < 1e-5
        rng = np.random.default_rng(0)
        for share in (0.5, None, None):
            plan = analysis.plan(random_masks(analysis, rng, share))
            small = shrink(gm, plan, analysis=analysis)
            assert plan.cost["parameters"][1] < plan.cost["parameters"][0]
            expected = run_masked(gm, analysis.typing, analysis.masks(plan), *args)
            assert relative_error(small(*args), expected) < 1e-5
