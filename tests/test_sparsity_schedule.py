"""The cubic schedule and gradual pruning while training."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprune.errors import PassError
from graphprune.graph import get_attribute, graph_info
from graphprune.passes.prune_weights import PruneWeights
from graphprune.sparsity.schedule import CubicSchedule, GradualPruner
from tests.small_models import accuracy, cross_entropy, texture_batches, traced_conv_net


def train(gm, optimizer, batches, pruner=None):
    for batch in batches:
        optimizer.zero_grad()
        cross_entropy(gm(batch[0]), batch).backward()
        optimizer.step()
        if pruner is not None:
            pruner.step()


def test_values_of_the_paper():
    schedule = CubicSchedule(initial=0.1, final=0.9, begin_step=100, end_step=300, every=50)
    assert schedule(99) == 0.0
    assert schedule(100) == pytest.approx(0.1)
    assert schedule(200) == pytest.approx(0.9 - 0.8 * 0.5**3)
    assert schedule(300) == schedule(10_000) == 0.9
    assert [step for step in range(1000) if schedule.prunes_at(step)] == [100, 150, 200, 250, 300]


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 50), st.integers(1, 80), st.integers(1, 30))
def test_rises_within_bounds_and_ends_exactly(first, second, begin, length, every):
    initial, final = sorted((first, second))
    schedule = CubicSchedule(initial, final, begin, begin + length, every)
    values = [schedule(step) for step in range(begin, begin + length + 10)]
    assert all(a <= b + 1e-12 for a, b in pairwise(values))
    assert values[-1] == final and schedule.prunes_at(begin + length)
    assert min(values) >= initial - 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {"initial": 0.9, "final": 0.5},
        {"final": 1.0},
        {"begin_step": 10, "end_step": 10},
        {"every": 0},
    ],
)
def test_schedules_that_make_no_sense(options):
    with pytest.raises(PassError, match="must"):
        CubicSchedule(**options)


def test_accuracy_recovers_from_gradual_pruning_where_one_shot_pruning_destroys_it():
    batches, held_out = texture_batches(160, batch=16), texture_batches(10, batch=16, seed=99)
    gm = traced_conv_net(batch=16).train()
    optimizer = torch.optim.Adam(gm.parameters(), lr=3e-3)
    train(gm, optimizer, batches[:60])
    dense = accuracy(gm.eval(), held_out)
    at_once = accuracy(PruneWeights(sparsity=0.9)(gm), held_out)

    gm.train()
    pruner = GradualPruner(gm, CubicSchedule(final=0.9, end_step=60, every=10), PruneWeights(), optimizer)
    train(gm, optimizer, batches[60:], pruner)
    pruner.finalize()
    gradually = accuracy(gm.eval(), held_out)
    assert dense > 0.9
    assert at_once < dense - 0.2
    assert gradually > dense - 0.1
    masks = graph_info(gm).weight_masks
    weights = sum(mask.numel() for mask in masks.values())
    assert pruner.sparsity == pytest.approx(0.9, abs=1 / weights)
    assert sum(int((get_attribute(gm, path) == 0).sum()) for path in masks) == round(0.9 * weights)


def test_sparsity_follows_the_schedule_and_masks_only_grow():
    gm, batches = traced_conv_net().train(), texture_batches(12)
    optimizer = torch.optim.SGD(gm.parameters(), lr=0.05, momentum=0.9)
    schedule = CubicSchedule(final=0.8, begin_step=2, end_step=9, every=3)
    pruner = GradualPruner(gm, schedule, PruneWeights(), optimizer)
    previous: dict[str, torch.Tensor] = {}
    for step, batch in enumerate(batches):
        train(gm, optimizer, [batch])
        assert pruner.step() == (step in (2, 5, 8, 9))
        masks = {path: mask.clone() for path, mask in graph_info(gm).weight_masks.items()}
        if step >= 2:
            last = max(s for s in (2, 5, 8, 9) if s <= step)
            assert pruner.sparsity == pytest.approx(schedule(last), abs=1e-3)
        assert all(not (masks[path] & ~previous[path]).any() for path in previous)
        assert all(not get_attribute(gm, path)[~mask].any() for path, mask in masks.items())
        previous = masks


def test_resuming_gives_the_same_weights_as_never_stopping():
    def fresh():
        gm = traced_conv_net().train()
        for module in gm.graph.nodes:
            if module.name == "dropout":
                module.update_arg(1, 0.0)
        gm.recompile()
        optimizer = torch.optim.SGD(gm.parameters(), lr=0.05, momentum=0.9)
        schedule = CubicSchedule(final=0.8, end_step=8, every=2)
        return gm, optimizer, GradualPruner(gm, schedule, PruneWeights(), optimizer)

    batches = texture_batches(10)
    straight, optimizer, pruner = fresh()
    train(straight, optimizer, batches, pruner)
    first, optimizer, pruner = fresh()
    train(first, optimizer, batches[:5], pruner)
    saved = [first.state_dict(), optimizer.state_dict(), pruner.state_dict()]
    second, optimizer, pruner = fresh()
    for part, state in zip((second, optimizer, pruner), saved, strict=True):
        part.load_state_dict(state)
    train(second, optimizer, batches[5:], pruner)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for path, mask in graph_info(straight).weight_masks.items():
        assert torch.equal(mask, graph_info(second).weight_masks[path])


def test_layers_with_their_own_sparsity_rise_in_proportion():
    gm = traced_conv_net()
    chooser = PruneWeights(sparsity=0.8, layer_sparsity={"conv1.*": 0.4})
    pruner = GradualPruner(gm, CubicSchedule(initial=0.4, final=0.8, end_step=10, every=10), chooser)
    pruner.step()
    assert float((~graph_info(gm).weight_masks["conv1.weight"]).float().mean()) == pytest.approx(0.2, abs=1e-3)
    for _ in range(10):
        pruner.step()
    assert float((~graph_info(gm).weight_masks["conv1.weight"]).float().mean()) == pytest.approx(0.4, abs=1e-3)


def test_n_of_m_cannot_be_gradual():
    pruner = GradualPruner(traced_conv_net(), CubicSchedule(), PruneWeights(pattern="2:4"))
    with pytest.raises(PassError, match="fixes the sparsity"):
        pruner.step()
