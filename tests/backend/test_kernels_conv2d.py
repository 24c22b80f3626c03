import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphprune.backend.kernels import Choice, ConvShape, Epilogue, conv2d
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import check_conv2d

FUSED = Epilogue(bias=True, residual=True, activation="relu")


@pytest.mark.parametrize("sparsity", [None, 0.9, 1.0])
@pytest.mark.parametrize(
    "x_shape, weight_shape, stride, padding",
    [
        ((1, 64, 14, 14), (48, 64, 1, 1), 1, 0),
        ((1, 40, 28, 28), (24, 40, 3, 3), 1, 1),
        ((1, 40, 28, 28), (24, 40, 3, 3), 2, 1),
        ((1, 64, 14, 14), (32, 64, 1, 1), 2, 0),
        ((2, 70, 7, 7), (33, 70, 3, 3), 1, 1),
        ((1, 70, 7, 7), (33, 70, 1, 1), 1, 0),
        ((1, 3, 61, 57), (19, 3, 7, 7), 2, 3),
    ],
)
def test_layers_of_residual_networks(x_shape, weight_shape, stride, padding, sparsity):
    check_conv2d(
        x_shape,
        weight_shape,
        sparse=sparsity is not None,
        sparsity=sparsity or 0.0,
        stride=(stride, stride),
        padding=(padding, padding),
        epilogue=FUSED,
    )


@pytest.mark.parametrize("kernel", [1, 3])
def test_outputs_beyond_the_second_level_cache_are_asked_for_ahead(kernel):
    shape = ((1, 6, 53, 55), (50, 6, kernel, kernel))
    check_conv2d(*shape, sparse=True, sparsity=0.5, padding=(kernel // 2,) * 2, epilogue=FUSED)


@settings(max_examples=35, deadline=None)
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 9),
    out_channels=st.integers(1, 11),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    way=st.sampled_from(["dense", "sparse", "gathered"]),
    epilogue=st.sampled_from([Epilogue(), FUSED, Epilogue(bias=True, activation="gelu")]),
)
def test_any_geometry(batch, channels, out_channels, size, kernel, stride, padding, dilation, way, epilogue):
    sparse = way != "dense"
    for axis in range(2):
        assume(size[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1))
    check_conv2d(
        (batch, channels, *size),
        (out_channels, channels, *kernel),
        sparse=sparse,
        sparsity=0.6 * sparse,
        stride=stride,
        padding=padding,
        dilation=dilation,
        epilogue=epilogue,
        choice=Choice(gathers=True) if way == "gathered" else Choice(),
    )


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    out_channels=st.integers(40, 75),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    epilogue=st.sampled_from([Epilogue(), FUSED]),
)
def test_layers_wide_enough_to_copy_their_input_together(
    batch, channels, out_channels, size, kernel, stride, dilation, epilogue
):
    padding = kernel // 2
    assume(min(size) + 2 * padding > dilation * (kernel - 1))
    check_conv2d(
        (batch, channels, *size),
        (out_channels, channels, kernel, kernel),
        sparse=False,
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        epilogue=epilogue,
        choice=Choice(winograd=0),
    )


@pytest.mark.parametrize("plane, name", [(14, "dense_small_conv2d"), (7, "dense_small_conv2d"), (28, "dense_conv2d")])
def test_small_planes_of_wide_layers_have_their_own_kernel(plane, name):
    direct = Choice(winograd=0)
    kernel = check_conv2d(
        (2, 40, plane, plane), (70, 40, 3, 3), sparse=False, padding=(1, 1), epilogue=FUSED, choice=direct
    )
    assert kernel.name == name


@pytest.mark.parametrize(
    "x_shape, weight_shape, stride, name",
    [
        ((1, 300, 14, 14), (70, 300, 1, 1), 1, "dense_small_conv2d"),  # five panels: positions are cut in two
        ((2, 300, 7, 7), (70, 300, 1, 1), 1, "dense_small_conv2d"),  # the last run of positions ends beyond the input
        ((1, 300, 13, 13), (70, 300, 1, 1), 2, "dense_small_conv2d"),
        ((2, 300, 17, 19), (100, 300, 1, 1), 1, "dense_conv2d"),
        ((1, 40, 33, 35), (30, 40, 3, 3), 2, "dense_conv2d"),  # runs of positions over three rows of the planes
    ],
)
def test_long_reductions_are_cut_into_blocks(x_shape, weight_shape, stride, name):
    padding = weight_shape[2] // 2
    kernel = check_conv2d(
        x_shape, weight_shape, sparse=False, stride=(stride,) * 2, padding=(padding,) * 2, epilogue=FUSED
    )
    assert kernel.name == name
    assert " blocks" in kernel.note and " 1 blocks" not in kernel.note


@pytest.mark.parametrize(
    "channels, out_channels, groups", [(12, 12, 12), (6, 12, 6), (12, 20, 4), (8, 8, 2), (3, 3, 3)]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_groups(channels, out_channels, groups, stride, kernel):
    check_conv2d(
        (2, channels, 15, 13),
        (out_channels, channels // groups, kernel, kernel),
        sparse=False,
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        groups=groups,
        epilogue=Epilogue(bias=True, activation="hardswish"),
    )


@settings(max_examples=6, deadline=None)
@given(
    channels=st.integers(2, 9),
    size=st.tuples(st.integers(70, 90), st.integers(70, 90)),
    kernel=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 2),
)
def test_depthwise_filters_of_large_planes_go_strip_by_strip(channels, size, kernel, stride, padding, dilation):
    result = check_conv2d(
        (2, channels, *size),
        (channels, 1, *kernel),
        sparse=False,
        stride=stride,
        padding=padding,
        dilation=(dilation, dilation),
        groups=channels,
        epilogue=FUSED,
    )
    assert result.name == "depthwise_conv2d"
    assert stride != (1, 1) or not result.note.endswith(" 1 strips")


@pytest.mark.parametrize(
    "batch, channels, out_channels, groups, size, kernel, stride",
    [
        (2, 12, 20, 4, (15, 13), 3, 1),
        (1, 8, 6, 2, (9, 17), 5, 2),
        (1, 21, 35, 7, (7, 7), 1, 1),
        (2, 6, 18, 2, (11, 6), 1, 2),
        (1, 600, 8, 2, (14, 14), 3, 1),  # the reduction of a group is cut into blocks
        (1, 64, 96, 2, (14, 14), 1, 1),  # row chunks that span groups
    ],
)
def test_sparse_groups(batch, channels, out_channels, groups, size, kernel, stride):
    result = check_conv2d(
        (batch, channels, *size),
        (out_channels, channels // groups, kernel, kernel),
        sparse=True,
        sparsity=0.6,
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        groups=groups,
        epilogue=FUSED,
    )
    assert result.name == "sparse_conv2d"


@pytest.mark.parametrize(
    "x_shape, weight_shape, note",
    [
        ((1, 64, 56, 56), (8, 64, 3, 3), "32-bit offsets"),
        ((1, 64, 28, 28), (8, 64, 3, 3), "16-bit offsets"),
        ((1, 64, 14, 14), (48, 64, 1, 1), "16-bit offsets"),
    ],
)
def test_offsets_take_the_bits_they_need(x_shape, weight_shape, note):
    padding = (weight_shape[2] // 2,) * 2
    kernel = check_conv2d(x_shape, weight_shape, sparse=True, sparsity=0.8, padding=padding, epilogue=FUSED)
    assert kernel.note.endswith(note)


def test_sparse_reductions_are_cut_into_blocks():
    kernel = check_conv2d((1, 300, 14, 14), (10, 300, 3, 3), sparse=True, sparsity=0.9, padding=(1, 1), epilogue=FUSED)
    assert " blocks" in kernel.note and " 1 blocks" not in kernel.note


@pytest.mark.parametrize("stride", [1, 2])
def test_rows_of_many_blocks_end_with_whole_steps(stride):
    kernel = check_conv2d(
        (1, 96, 14, 14),
        (10, 96, 3, 3),
        sparse=True,
        sparsity=0.8,
        stride=(stride, stride),
        padding=(1, 1),
        epilogue=FUSED,
        choice=Choice(block_floats=1024, gathers=False),
    )
    _, _, pointers, *_ = kernel.constants
    assert len(pointers) > 8 * 10 and not np.any(np.diff(pointers) % 4)


def test_refuses_what_it_cannot_compute():
    weight = np.ones((4, 2, 3, 3), np.float32)
    target = parse_target()
    with pytest.raises(BackendError, match="depthwise") as caught:
        conv2d(weight[:, :1], None, ConvShape((1, 4, 8, 8), groups=4), Epilogue(), target, sparse=True)
    assert "dense" in str(caught.value)
    with pytest.raises(BackendError, match="does not fit"):
        conv2d(weight, None, ConvShape((1, 5, 8, 8)), Epilogue(), target, sparse=False)
    with pytest.raises(BackendError, match="no output"):
        conv2d(weight, None, ConvShape((1, 2, 2, 2)), Epilogue(), target, sparse=False)
    with pytest.raises(BackendError, match="4-d"):
        conv2d(weight, None, ConvShape((2, 8, 8)), Epilogue(), target, sparse=False)
