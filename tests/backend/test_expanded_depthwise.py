import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from graphprune import compile
from graphprune.backend.kernels import Convolution, ConvShape, Epilogue, expanded_depthwise
from graphprune.backend.kernels.expanded_depthwise import fused_kernel, pair_geometry
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import ACTIVATION, random_weight, run_kernel


def pair(x_shape, channels, kernel, *, multiplier=1, activation="relu6", sparsity=0.7, epilogue=None, **geometry):
    generator = np.random.default_rng(hash((x_shape, channels, kernel)) % 2**32)
    inner = (x_shape[0], channels, *x_shape[2:])
    bias = generator.standard_normal(channels * multiplier).astype(np.float32)
    expansion = Convolution(
        random_weight(generator, (channels, x_shape[1], 1, 1), sparsity), bias[:channels], ConvShape(x_shape),
        Epilogue(bias=True, activation=activation),
    )  # fmt: skip
    filters = random_weight(generator, (channels * multiplier, 1, *kernel), 0.0)
    shape = ConvShape(inner, groups=channels, **geometry)
    return expansion, Convolution(filters, bias, shape, epilogue or Epilogue(bias=True, activation="relu"))


def check(expansion, depthwise, kernel, target=None):
    generator = np.random.default_rng(1)
    x = generator.standard_normal(expansion.shape.x_shape).astype(np.float32)
    residual = generator.standard_normal(kernel.output_shape).astype(np.float32)
    inputs = [x, residual] if depthwise.epilogue.residual else [x]
    y = torch.from_numpy(x).double()
    for layer in (expansion, depthwise):
        shape = layer.shape
        weight, bias = torch.from_numpy(layer.weight).double(), torch.from_numpy(layer.bias).double()
        y = functional.conv2d(y, weight, bias, shape.stride, shape.padding, shape.dilation, shape.groups)
        y = y + torch.from_numpy(residual).double() if layer.epilogue.residual else y
        y = ACTIVATION[layer.epilogue.activation](y)
    np.testing.assert_allclose(run_kernel(kernel, *inputs, target=target), y.numpy(), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2),
    depth=st.integers(1, 5),
    channels=st.integers(1, 11),
    multiplier=st.integers(1, 2),
    size=st.tuples(st.integers(1, 19), st.integers(16, 61)),
    kernel=st.tuples(st.integers(1, 5), st.integers(2, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    activation=st.sampled_from(["none", "relu6", "silu"]),
    residual=st.booleans(),
)
def test_any_pair(batch, depth, channels, multiplier, size, kernel, stride, padding, dilation, activation, residual):
    for axis in range(2):
        assume(size[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1))
    epilogue = Epilogue(bias=True, residual=residual, activation="relu")
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    expansion, depthwise = pair(
        (batch, depth, *size), channels, kernel,
        multiplier=multiplier, activation=activation, epilogue=epilogue, **geometry,
    )  # fmt: skip
    target = parse_target()
    try:
        kernel = fused_kernel(expansion, depthwise, pair_geometry(expansion, depthwise, target), target)
    except BackendError:
        assume(False)
    check(expansion, depthwise, kernel)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("target", ["llvm", "llvm -mcpu=native"])
def test_rows_of_several_tiles_and_planes_of_several_strips(stride, target):
    target = parse_target(target)
    expansion, depthwise = pair((1, 5, 112, 112), 22, (3, 3), stride=(stride, stride), padding=(1, 1))
    kernel = expanded_depthwise(expansion, depthwise, target)
    assert "1 strips" not in kernel.note
    check(expansion, depthwise, kernel, target)


REFUSED = {
    "fits a cache": pair((1, 4, 24, 64), 8, (3, 3)),
    "rows are short": pair((1, 4, 32, 32), 300, (3, 3)),
    "depthwise convolution computes more": pair((1, 4, 64, 64), 80, (5, 5)),
    "1x1 convolution computes more": pair((1, 64, 64, 64), 80, (3, 3), sparsity=0.0),
    "stride above 2": pair((1, 4, 64, 64), 80, (3, 3), stride=(1, 3)),
    "odd length": pair((1, 4, 8, 163), 300, (3, 3), stride=(2, 2), padding=(1, 1)),
    "unread": pair((1, 4, 64, 65), 80, (2, 2), stride=(2, 2)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_where_two_kernels_are_as_good_the_reason_is_said(reason):
    with pytest.raises(BackendError, match=reason):
        expanded_depthwise(*REFUSED[reason], parse_target())


class Inverted(nn.Module):
    """The first half of an inverted residual block; with ``twice`` something else reads the wide tensor too."""

    def __init__(self, twice):
        super().__init__()
        self.expand, self.filter, self.twice = nn.Conv2d(8, 96, 1), nn.Conv2d(96, 96, 3, 2, 1, groups=96), twice
        self.expand.weight.data *= torch.rand(96, 8, 1, 1, generator=torch.Generator().manual_seed(0)) > 0.8

    def forward(self, x):
        wide = functional.relu6(self.expand(x))
        return functional.relu6(self.filter(wide)) + (wide.mean() if self.twice else 0.0)


@pytest.mark.parametrize("twice", [False, True])
def test_a_sparse_expansion_that_one_depthwise_convolution_reads_is_computed_inside_it(twice):
    model, x = Inverted(twice).eval(), torch.randn(1, 8, 60, 60)
    compiled = compile(model, None, (x,), min_sparsity=0.5)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)
    kernels = {layer.name: layer.kernel for layer in compiled.report().layers}
    if twice:
        assert kernels == {"expand.weight": "sparse_conv2d", "filter.weight": "depthwise_conv2d"}
        return
    assert kernels == dict.fromkeys(("expand.weight", "filter.weight"), "expanded_depthwise")
    assert "filter.weight" in str(compiled.report().layers[0].note)
    (call,) = [row.call for row in compiled.profile(x, repeats=1).rows if row.call.kernel == "expanded_depthwise"]
    assert call.layer == "expand.weight + filter.weight"
    assert call.macs == 96 * (8 * 60 * 60 + 9 * 30 * 30)
    nonzero = int((model.expand.weight != 0).sum()) * 3600 + 96 * 9 * 900
    assert call.nonzero_macs == pytest.approx(nonzero, rel=1e-6)
