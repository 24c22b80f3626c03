"""Winograd's algorithm: exact in exact arithmetic, close in float32, right at every edge, and used where it pays."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphprune as gp
from graphprune.backend.kernels import Choice, ConvShape, Epilogue, conv2d, winograd_plan
from graphprune.backend.kernels.geometry import conv_geometry
from graphprune.backend.kernels.minimal_filtering import filtering, has_filtering
from graphprune.backend.kernels.winograd_plan import choose_winograd
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import check_conv2d, random_weight, run_kernel

FUSED = Epilogue(bias=True, residual=True, activation="relu")


@pytest.mark.parametrize("points, taps", [(4, 2), (4, 3), (5, 2), (5, 3), (5, 4), (6, 2), (6, 3), (6, 5), (6, 1)])
def test_filtering_is_a_convolution(points, taps):
    algorithm = filtering(points, taps)
    generator = np.random.default_rng(taps)
    inputs, kernel = generator.standard_normal(algorithm.points), generator.standard_normal(taps)
    products = (algorithm.tap_matrix @ kernel) * (algorithm.input_matrix @ inputs)
    np.testing.assert_allclose(algorithm.output_matrix @ products, np.correlate(inputs, kernel), rtol=1e-12, atol=1e-12)
    assert has_filtering(points, taps) == (taps > 1)


@settings(max_examples=7, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 20),
    out_channels=st.integers(8, 37),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    kernel=st.sampled_from([(3, 3), (3, 3), (3, 1), (1, 3), (2, 3), (5, 5), (4, 2)]),
    stride=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)]),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    points=st.sampled_from([4, 5, 6]),
    epilogue=st.sampled_from([Epilogue(), FUSED, Epilogue(bias=True, activation="silu")]),
)
def test_any_geometry(batch, channels, out_channels, size, kernel, stride, padding, points, epilogue):
    assume(all(size[axis] + 2 * padding[axis] >= kernel[axis] and kernel[axis] < points for axis in range(2)))
    assume(any(kernel[axis] > stride[axis] for axis in range(2)))
    kernel = check_conv2d(
        (batch, channels, *size),
        (out_channels, channels, *kernel),
        sparse=False,
        stride=stride,
        padding=padding,
        epilogue=epilogue,
        choice=Choice(winograd=points),
    )
    assert kernel.name == "winograd_conv2d"


def test_blocks_of_tiles_and_of_the_reduction(monkeypatch):
    monkeypatch.setattr(winograd_plan, "_HELD_FLOATS", 60_000)
    monkeypatch.setattr(winograd_plan, "_STRIP_FLOATS", 2_000)
    monkeypatch.setattr(winograd_plan, "_BLOCK_FLOATS", 512)
    x_shape, weight_shape = (3, 41, 27, 11), (24, 41, 3, 3)
    plan = choose_winograd(conv_geometry(weight_shape, ConvShape(x_shape, padding=(1, 1)), 8), 24, parse_target(), 6)
    # Several blocks, the last one moved back; units moved back inside a sample; a rest of the reduction.
    assert plan is not None and x_shape[0] * plan.units_down % plan.block_units
    assert plan.tiles_down % plan.unit_rows and 41 % plan.length
    check_conv2d(x_shape, weight_shape, sparse=False, padding=(1, 1), epilogue=FUSED, choice=Choice(winograd=6))


@pytest.mark.parametrize("points, bound", [(4, 1e-6), (5, 2e-6), (6, 4e-6)])
@pytest.mark.parametrize("positive", [False, True])
def test_error_relative_to_the_largest_output(points, bound, positive):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 256, 14, 14)).astype(np.float32)
    x = np.maximum(x, 0) if positive else x  # as after a ReLU: sums do not cancel
    weight = random_weight(generator, (64, 256, 3, 3), 0.0)
    shape = ConvShape(x.shape, padding=(1, 1))
    kernel = conv2d(weight, None, shape, Epilogue(), parse_target(), sparse=False, choice=Choice(winograd=points))
    exact = torch.nn.functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    error = np.abs(run_kernel(kernel, x) - exact.numpy()).max() / exact.abs().max().item()
    assert error < bound


@pytest.mark.parametrize(
    "channels, out_channels, plane, kernel, stride, points",
    [
        (64, 64, 56, 3, 1, 6),
        (512, 512, 7, 3, 1, 4),  # larger tiles would be half padding, and their weights twice as many
        (512, 512, 14, 3, 2, None),
        (64, 64, 56, 3, 2, 5),
        (64, 64, 56, 1, 1, None),
        (3, 16, 56, 3, 1, None),  # the transforms would take longer than the product
    ],
)
def test_layers_that_gain(channels, out_channels, plane, kernel, stride, points):
    shape = ConvShape((1, channels, plane, plane), (stride,) * 2, (kernel // 2,) * 2)
    geometry = conv_geometry((out_channels, channels, kernel, kernel), shape, 8)
    plan = choose_winograd(geometry, out_channels, parse_target("llvm -mcpu=znver3"))
    assert (None if plan is None else plan.vertical.points) == points


def test_what_it_cannot_compute_is_refused():
    weight = np.ones((16, 16, 3, 3), np.float32)
    shape = ConvShape((1, 16, 9, 9), dilation=(2, 2))
    with pytest.raises(BackendError, match="Winograd"):
        conv2d(weight, None, shape, Epilogue(), parse_target(), sparse=False, choice=Choice(winograd=6))


def test_it_can_be_switched_off():
    model = torch.nn.Conv2d(32, 32, 3, padding=1).eval()
    x = torch.randn(1, 32, 28, 28)
    shape, weight = ConvShape((1, 32, 28, 28), padding=(1, 1)), model.weight.detach().numpy()
    kernel = conv2d(weight, None, shape, Epilogue(), parse_target(), sparse=False)
    assert kernel.name == "winograd_conv2d" and "Winograd tile 4x4" in kernel.note
    compiled = gp.compile(model, example_inputs=(x,), winograd=False)
    (layer,) = compiled.report().layers
    assert layer.kernel == "dense_conv2d"
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
