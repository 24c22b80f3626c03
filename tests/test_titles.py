"""Titles of dimensions: where each lives, what it is, and no two alike."""

import pytest
import torch
from torch import nn

from graphprune.analysis import analyze
from graphprune.tracing.trace import trace
from tests.pruning_models import analysis
from tests.zoo.models import make


def titles(model, *inputs):
    found = analyze(trace(model.eval(), inputs)).dimensions
    return {d.title: d.kind for d in found}


def test_small_models():
    assert [d.title for d in analysis("residual").dimensions] == ["residual stream (8)", "conv1 channels (6)"]
    assert [d.title for d in analysis("attention").dimensions] == [
        "embedding width (10)", "qkv heads (3)", "qkv head width (4)", "up neurons (16)",
    ]  # fmt: skip
    assert [d.title for d in analysis("grouped").dimensions] == [
        "key-value groups (2)", "q query heads per group (3)", "query-key head width (4)", "v value head width (4)",
    ]  # fmt: skip


class Bottleneck(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv3, self.norm3 = nn.Conv2d(4, width, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm3(self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(x))))))


def test_stages_have_streams_and_blocks_have_layers():
    net = nn.Sequential()
    net.stem = nn.Conv2d(3, 6, 3)
    net.stage1 = nn.Sequential(Bottleneck(6), Bottleneck(6))
    net.down = nn.Conv2d(6, 8, 2, stride=2)
    net.stage2 = nn.Sequential(Bottleneck(8), Bottleneck(8))
    net.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, 3))
    assert list(titles(net, torch.randn(1, 3, 8, 8))) == [
        "stage1 residual stream (6)",
        "stage1.0.conv1 channels (4)", "stage1.0.conv2 channels (4)",
        "stage1.1.conv1 channels (4)", "stage1.1.conv2 channels (4)",
        "stage2 residual stream (8)",
        "stage2.0.conv1 channels (4)", "stage2.0.conv2 channels (4)",
        "stage2.1.conv1 channels (4)", "stage2.1.conv2 channels (4)",
    ]  # fmt: skip


def test_chains_are_named_after_the_layer_that_creates_them():
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2))
    assert titles(net, torch.randn(2, 5)) == {"0 neurons (7)": "neuron", "2 neurons (6)": "neuron"}


class Gated(nn.Module):
    """Squeeze and excitation inside an inverted bottleneck."""

    def __init__(self):
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=12)
        self.gate = nn.Sequential(nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1), nn.Sigmoid())
        self.project = nn.Conv2d(12, 3, 1)

    def forward(self, x):
        x = self.depthwise(self.expand(x))
        return self.project(x * self.gate(x.mean((2, 3), keepdim=True)))


def test_what_a_gate_scales_is_no_residual_stream():
    net = nn.Sequential()
    net.block = Gated()
    assert titles(net, torch.randn(1, 3, 6, 6)) == {
        "block inner channels (12)": "channel",
        "block.gate inner channels (4)": "channel",
    }


def test_groups():
    net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 20, 3, groups=4), nn.Conv2d(20, 3, 1))
    assert titles(net, torch.randn(1, 3, 6, 6)) == {
        "0 groups (4)": "factor",
        "0 channels per group (3)": "factor",
        "1 channels per group (5)": "channel",
    }


def test_pieces_of_one_layer_are_numbered():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Linear(4, 10)
            self.first, self.second = nn.Linear(6, 2), nn.Linear(4, 2)

        def forward(self, x):
            a, b = self.both(x).split([6, 4], dim=-1)
            return self.first(a), self.second(b)

    assert list(titles(Halves(), torch.randn(3, 4))) == ["both neurons (6)", "both neurons (4)"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf/bert", {"bert embedding width (48)", "bert.encoder.layer.1.attention heads (4)",
                     "bert.encoder.layer.1 hidden neurons (96)"}),
        ("hf/llama", {"model.layers.0.self_attn key-value groups (2)", "model.layers.0.mlp hidden neurons (96)",
                      "model.layers.0.self_attn query heads per group (4)"}),
        ("torchvision/mobilenet_v3_small", {"features.4.block inner channels (96)", "features.8 residual stream (48)",
                                            "classifier hidden neurons (1024)"}),
        ("torchvision/shufflenet_v2_x1_0", {"stage2.0.branch2 inner channels (58)", "conv5.0 channels (1024)"}),
    ],
)  # fmt: skip
def test_real_models(name, expected):
    example = make(name)
    found = [d.title for d in analyze(trace(example.model, example.args, example.kwargs)).dimensions]
    assert expected <= set(found)
    assert len(set(found)) == len(found)
