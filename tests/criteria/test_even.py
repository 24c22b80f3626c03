"""Even spacing, the criterion that needs no values, and planning on the meta device with it."""

import numpy as np
import pytest
import torch

import graphprune
from graphprune.criteria import L2, Even
from graphprune.passes import PruneChannels
from graphprune.units.budget import keep_highest
from tests.small_models import ConvNet


@pytest.mark.parametrize("size", [1, 2, 7, 16, 100])
def test_any_number_of_kept_units_is_spread_over_the_dimension(size: int):
    scores = Even().by_position(size).numpy()
    assert len(set(scores)) == size
    for count in range(1, size + 1):
        gaps = np.diff([*np.flatnonzero(keep_highest(scores, count)), size])
        assert gaps.max() <= 2 * (size / count) + 2


def test_a_model_without_values_can_be_planned_evenly_only():
    with torch.device("meta"):
        model, x = ConvNet().eval(), torch.empty(2, 4, 8, 8)
    plan = graphprune.plan(model, PruneChannels(ratio=0.5, criterion=Even()), (x,))
    assert plan.cost["parameters"][1] < plan.cost["parameters"][0]
    with pytest.raises(graphprune.PassError, match=r"Even\(\)"):
        graphprune.plan(model, PruneChannels(ratio=0.5, criterion=L2()), (x,))
