"""FuseEpilogues and MarkSparse: what fuses, what does not and why, and that values stay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphprune.errors import PassError
from graphprune.graph import bind_arguments, graph_info, op_name
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.mark_sparse import MarkSparse
from graphprune.passes.sequential import Sequential
from graphprune.tracing.trace import trace

X = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Layers by name, and a function of them and x."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def _fuse(model, x=X):
    gm = trace(model.eval(), (x,))
    fused = FuseEpilogues()(gm)
    with torch.no_grad():
        assert torch.allclose(fused(x), model(x), atol=1e-5)
    nodes = [node for node in fused.graph.nodes if node.op == "call_function"]
    return nodes, graph_info(fused).history[-1].summary


def _conv(inputs=8, outputs=8, kernel=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, **options)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (F.relu, "relu"),
        (F.relu6, "relu6"),
        (F.hardswish, "hardswish"),
        (F.silu, "silu"),
        (F.gelu, "gelu"),
        (lambda x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
        (torch.sigmoid, "sigmoid"),
        (torch.tanh, "tanh"),
        (lambda x: x.clamp(0, 6), "relu6"),
        (lambda x: F.hardtanh(x, 0.0, 6.0), "relu6"),
    ],
)
def test_activation_fuses(activation, name):
    nodes, _ = _fuse(Net(lambda net, x: activation(net.conv(x)), conv=_conv(kernel=3, stride=2, padding=1)))
    assert [node.target for node in nodes] == [FUSED_CONV2D]
    assert bind_arguments(nodes[0])["activation"] == name


@pytest.mark.parametrize("activation", [lambda x: x.clamp(0, 5), lambda x: x.clamp(min=0), F.elu])
def test_other_activations_stay(activation):
    nodes, _ = _fuse(Net(lambda net, x: activation(net.conv(x)), conv=_conv()))
    assert len(nodes) == 2 and bind_arguments(nodes[0])["activation"] == "none"


def test_residual_and_activation_fuse():
    nodes, summary = _fuse(Net(lambda net, x: F.relu(net.conv(x) + x), conv=_conv()))
    assert len(nodes) == 1 and bind_arguments(nodes[0])["residual"].op == "placeholder"
    assert summary["fused"] == {"conv.weight": "bias + residual + relu"}


def test_of_two_layers_added_the_later_takes_the_sum():
    model = Net(lambda net, x: F.relu(net.left(x) + net.right(x)), left=_conv(), right=_conv(kernel=3, padding=1))
    nodes, _ = _fuse(model)
    assert [node.target for node in nodes] == [FUSED_CONV2D] * 2
    assert bind_arguments(nodes[1])["residual"] is nodes[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: torch.add(net.conv(x), x, alpha=2),
        lambda net, x: net.conv(x) + x.mean((2, 3), keepdim=True),
        lambda net, x: net.conv(x) + 1.5,
        lambda net, x: (lambda y: y + y)(net.conv(x)),
    ],
)
def test_other_additions_do_not_fuse(function):
    nodes, _ = _fuse(Net(function, conv=_conv()))
    assert all(bind_arguments(node)["residual"] is None for node in nodes if node.target is FUSED_CONV2D)
    assert "add" in [op_name(node) for node in nodes]


def test_a_value_with_two_users_does_not_fuse_its_activation():
    nodes, _ = _fuse(Net(lambda net, x: (lambda y: F.relu(y) * y)(net.conv(x)), conv=_conv()))
    assert [op_name(node) for node in nodes] == ["fused_conv2d", "relu", "mul"]


def test_linear_dropout_and_addmm():
    x = torch.randn(5, 12)
    model = Net(
        lambda net, x: torch.addmm(net.second.bias, F.dropout(F.gelu(net.first(x)), 0.5, net.training), net.matrix),
        first=nn.Linear(12, 12),
        second=nn.Linear(12, 7),
    )
    model.matrix = nn.Parameter(torch.randn(12, 7))
    nodes, _ = _fuse(model, x)
    assert [node.target for node in nodes] == [FUSED_LINEAR] * 2


def test_conv1d_becomes_a_flat_conv2d():
    x = torch.randn(2, 8, 30)
    nodes, _ = _fuse(Net(lambda net, x: F.relu(net.conv(x)), conv=nn.Conv1d(8, 4, 5, 2, 1)), x)
    assert [op_name(node) for node in nodes] == ["unsqueeze", "fused_conv2d", "squeeze"]
    assert bind_arguments(nodes[1])["activation"] == "relu"


def test_maxima_whose_positions_nobody_reads():
    def function(net, x):
        least, place = x.min(2, keepdim=True)
        return x.max(-1)[0] + x.min(2)[0], least, place

    gm = FuseEpilogues()(trace(Net(function), (X,)))
    names = [op_name(node) for node in gm.graph.nodes]
    assert names.count("amax") == names.count("amin") == names.count("min") == 1
    for result, expected in zip(gm(X), function(None, X), strict=True):
        assert torch.equal(result, expected)


def test_computed_weight_is_skipped_with_the_reason():
    nodes, summary = _fuse(Net(lambda net, x: F.linear(x, x[0, 0] * 2)))
    assert "linear" in [op_name(node) for node in nodes]
    assert "computed" in next(iter(summary["skipped"].values()))


def _sparse(rows, columns, density):
    layer = nn.Linear(rows, columns)
    generator = torch.Generator().manual_seed(rows)
    layer.weight.data *= torch.rand(columns, rows, generator=generator) < density
    return layer


def _mark(model, x, **options):
    gm = Sequential(FuseEpilogues(), MarkSparse(**options))(trace(model.eval(), (x,)))
    with torch.no_grad():
        assert torch.allclose(gm(x), model(x), atol=1e-5)
    return list(graph_info(gm).history[-1].summary["layers"].values()), gm


def test_mark_sparse_goes_by_density_and_says_so():
    model = nn.Sequential(_sparse(40, 50, 0.1), nn.ReLU(), _sparse(50, 60, 0.9))
    (first, second), gm = _mark(model, torch.randn(9, 40))
    assert (first["format"], second["format"]) == ("csr", "dense")
    assert "reaches" in first["reason"] and "below" in second["reason"]
    formats = [bind_arguments(node)["format"] for node in gm.graph.nodes if node.target is FUSED_LINEAR]
    assert formats == ["csr", "dense"]


def test_mark_sparse_threshold_can_be_set():
    model = nn.Sequential(_sparse(40, 50, 0.5))
    assert _mark(model, torch.randn(9, 40), min_sparsity=0.4)[0][0]["format"] == "csr"
    assert _mark(model, torch.randn(9, 40), min_sparsity=0.6)[0][0]["format"] == "dense"
    with pytest.raises(PassError, match="between 0 and 1"):
        MarkSparse(min_sparsity=1.5)


def test_marked_graph_exports_again():
    x = torch.randn(9, 40)
    model = nn.Sequential(_sparse(40, 50, 0.1), nn.ReLU()).eval()
    _, gm = _mark(model, x)
    again = torch.export.export(gm, (x,), strict=False).module()
    assert torch.allclose(again(x), model(x), atol=1e-6)


def test_mark_sparse_knows_what_dense_convolutions_gain_from_winograds_algorithm():
    def formats(size, **options):
        layers = [nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 1)]
        for layer in layers:
            layer.weight.data *= torch.arange(layer.weight.numel()).reshape(layer.weight.shape) % 10 >= 7
        return [each["format"] for each in _mark(nn.Sequential(*layers), torch.randn(1, 32, size, size), **options)[0]]

    assert formats(12) == ["dense", "csr", "csr"]
    assert formats(12, winograd=False) == formats(6) == ["csr", "csr", "csr"]  # the smaller plane: half-empty tiles
