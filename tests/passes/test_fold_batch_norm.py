"""FoldBatchNorm: values stay, batch norms go, zeros and masks stay zeros and masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphprune.graph import attribute_tensors, graph_info, op_name
from graphprune.passes.fold_batch_norm import FoldBatchNorm
from graphprune.tracing.trace import trace


def _settle(model):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return model.eval()


def _fold(model, x):
    torch.manual_seed(0)
    _settle(model)
    gm = trace(model, (x,))
    folded = FoldBatchNorm()(gm)
    with torch.no_grad():
        expected, result = model(x), folded(x)
    assert (result - expected).abs().max() <= 2e-5 * expected.abs().max()
    ops = [op_name(node) for node in folded.graph.nodes if node.op == "call_function"]
    return folded, ops, list(graph_info(folded).history[-1].summary["batch_norms"].values())


X1, X2, X3 = torch.randn(2, 8, 20), torch.randn(2, 8, 9, 9), torch.randn(2, 8, 5, 5, 5)


@pytest.mark.parametrize(
    ("layers", "x"),
    [
        ((nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6)), X1),
        ((nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6)), X2),
        ((nn.Conv2d(8, 16, 3, groups=4), nn.BatchNorm2d(16)), X2),
        ((nn.Conv2d(8, 6, 3, padding="same"), nn.BatchNorm2d(6, affine=False)), X2),
        ((nn.Conv3d(8, 6, 3), nn.BatchNorm3d(6)), X3),
        ((nn.ConvTranspose2d(8, 6, 3, 2), nn.BatchNorm2d(6)), X2),
        ((nn.ConvTranspose2d(8, 12, 3, groups=2), nn.BatchNorm2d(12)), X2),
        ((nn.Flatten(), nn.Linear(160, 7), nn.BatchNorm1d(7)), X1),
    ],
)
def test_folds_into_the_layer_before(layers, x):
    _, ops, outcome = _fold(nn.Sequential(*layers), x)
    assert "batch_norm" not in ops and "mul" not in ops
    assert outcome[0].startswith("folded into")


def test_folds_into_the_layer_after_when_nothing_is_padded():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, groups=2))
    _, ops, outcome = _fold(model, X2)
    assert ops == ["relu", "conv2d"] and "follows" in outcome[0]


def test_padding_after_leaves_a_scale_and_shift():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1))
    _, ops, outcome = _fold(model, X2)
    assert ops == ["conv2d", "relu", "mul", "add", "conv2d"] and "comes from relu" in outcome[0]


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm2(self.conv(self.norm1(self.conv(x)).relu()))


def test_a_shared_weight_is_folded_separately_for_each_use():
    _, ops, _ = _fold(Shared(), X2)
    assert ops == ["conv2d", "relu", "conv2d"]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def test_a_layer_with_other_users_is_left_alone():
    _, ops, outcome = _fold(Branching(), X2)
    assert ops.count("mul") == 1 and "other users" in outcome[0]


def test_batch_statistics_are_left_alone():
    _, ops, outcome = _fold(nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), X2)
    assert "batch_norm" in ops and outcome[0].startswith("left")


def test_zeros_and_masks_survive():
    model = nn.Sequential(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6))
    keep = torch.rand(model[0].weight.shape) > 0.5
    model[0].weight.data *= keep
    gm = trace(_settle(model), (X2,))
    graph_info(gm).weight_masks["0.weight"] = keep
    folded = FoldBatchNorm()(gm)
    weight = attribute_tensors(folded)["0.weight"]
    assert torch.equal(weight != 0, keep)
    assert torch.equal(graph_info(folded).weight_masks["0.weight"], keep)
    assert torch.equal(attribute_tensors(gm)["0.weight"], model[0].weight), "the input graph must not change"
