"""Criteria that need no data: L1, L2, batch-norm scale, random."""

import torch

from graphprune.criteria import L1, L2, BNScale, Random
from tests.small_models import traced_conv_net


def test_l1_is_absolute_value_and_l2_sums_to_a_norm():
    gm = traced_conv_net()
    weight = gm.get_parameter("conv1.weight")
    assert torch.equal(L1().saliency(gm, ["conv1.weight"])["conv1.weight"], weight.detach().abs())
    squares = L2().saliency(gm, ["conv1.weight"])["conv1.weight"]
    norms = L2().finish(squares.sum((1, 2, 3)))
    torch.testing.assert_close(norms, weight.detach().flatten(1).norm(dim=1))


def test_bn_scale_scores_scales_found_in_the_graph_and_nothing_else():
    gm = traced_conv_net()
    paths = ["conv1.weight", "bn1.weight", "bn1.bias", "bn2.weight", "head.bias"]
    criterion = BNScale()
    saliency = criterion.saliency(gm, paths)
    assert criterion.scored(gm, paths) == {"bn1.weight", "bn2.weight"}
    assert torch.equal(saliency["bn2.weight"], gm.get_parameter("bn2.weight").detach().abs())
    assert not saliency["bn1.bias"].any() and not saliency["conv1.weight"].any()


def test_random_depends_on_seed_and_path_only():
    gm = traced_conv_net()
    state = torch.get_rng_state()
    alone = Random(3).saliency(gm, ["conv2.weight"])["conv2.weight"]
    among_others = Random(3).saliency(gm, ["conv1.weight", "conv2.weight"])["conv2.weight"]
    assert torch.equal(alone, among_others)
    assert not torch.equal(alone, Random(4).saliency(gm, ["conv2.weight"])["conv2.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_half_precision_weights_are_scored_in_float32():
    gm = traced_conv_net()
    gm.half()
    squares = L2().saliency(gm, ["conv1.weight"])["conv1.weight"]
    assert squares.dtype == torch.float32
    torch.testing.assert_close(squares, gm.get_parameter("conv1.weight").detach().float().square())
