"""Convolutions of every rank, transposed or not, become conv2d with the same values; zeros stay zeros."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphprune.compiler import compile
from graphprune.graph import graph_info, op_name
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.prune_weights import PruneWeights
from graphprune.passes.sequential import Sequential
from graphprune.plain_convolutions import CONVOLUTIONS, is_plain
from graphprune.tracing.trace import trace

# layer, shape of its input; inputs, outputs, kernel, stride, padding, [output padding,] groups, bias, dilation
CASES = {
    "as strided as wide": (nn.ConvTranspose2d(4, 6, 2, 2), (2, 4, 5, 3)),
    "of a generator": (nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2, bias=False), (1, 4, 5, 3)),
    "uneven": (nn.ConvTranspose2d(2, 3, (3, 5), (2, 3), (1, 2), (1, 0)), (2, 2, 4, 5)),
    "output padding beyond the filter": (nn.ConvTranspose1d(2, 3, 2, 4, 0, 3), (2, 2, 5)),
    "much padding": (nn.ConvTranspose1d(2, 3, 7, 4, 4, 3), (2, 2, 6)),
    "dilated": (nn.ConvTranspose2d(4, 4, 3, 2, 2, 1, groups=2, dilation=2), (4, 5, 6)),
    "without strides": (nn.ConvTranspose2d(3, 2, 3, 1, 1), (1, 3, 5, 4)),
    "transposed volume": (nn.ConvTranspose3d(4, 2, (2, 3, 4), (2, 1, 2), (0, 1, 1), groups=2), (2, 4, 3, 4, 2)),
    "volume": (nn.Conv3d(4, 6, 3, (2, 1, 2), 1, (1, 2, 1), 2), (2, 4, 5, 6, 7)),
    "frame by frame": (nn.Conv3d(3, 5, (1, 3, 3), padding=(0, 1, 1)), (2, 3, 4, 5, 6)),
    "along depth": (nn.Conv3d(3, 5, (3, 1, 1), (2, 1, 1), (1, 0, 0)), (2, 3, 6, 3, 4)),
    "point by point, no batch": (nn.Conv3d(3, 5, 1), (3, 4, 3, 2)),
    "same, uneven filter": (nn.Conv2d(3, 5, (4, 3), padding="same"), (2, 3, 6, 7)),
    "flat, same, no batch": (nn.Conv1d(3, 5, 4, padding="same", dilation=3), (3, 15)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CASES)
def test_values_stay(name):
    torch.manual_seed(0)
    layer, shape = CASES[name]
    model = nn.Sequential(layer, nn.Tanh()).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    gm = FuseEpilogues()(trace(model, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(gm(x), model(x), rtol=1e-12, atol=1e-12)
    layers = [node for node in gm.graph.nodes if op_name(node) in CONVOLUTIONS]
    assert len(layers) == 1 and is_plain(layers[0])
    assert [op_name(user) for user in layers[0].users] == ["tanh"], "an activation stays next to its layer"
    (path,) = graph_info(gm).history[-1].summary["rewritten"]
    assert path == "0.weight"


def test_a_weight_of_two_layers_keeps_both_forms():
    layer = nn.ConvTranspose2d(4, 4, 3, 2, 1)
    model = nn.Sequential(layer, nn.ReLU(), layer).eval()
    x = torch.randn(1, 4, 3, 3)
    gm = FuseEpilogues()(trace(model, (x,)))
    with torch.no_grad():
        torch.testing.assert_close(gm(x), model(x))


def test_zeros_stay_and_get_sparse_kernels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(4, 24, 3, padding=1), nn.ReLU(), nn.ConvTranspose3d(24, 8, 2, 2)).eval()
    x = torch.randn(1, 4, 4, 6, 7)
    sparse = Sequential(PruneWeights(sparsity=0.9))(trace(model, (x,)))
    compiled = compile(sparse, None, (x,))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), sparse(x), rtol=1e-5, atol=1e-5)
    assert [(layer.name, layer.kernel) for layer in compiled.report().layers] == [
        ("0.weight", "sparse_conv2d"),
        ("2.weight", "sparse_conv2d"),
    ]
    assert graph_info(FuseEpilogues()(sparse)).weight_masks["2.weight"].shape == (64, 24, 1, 1)
