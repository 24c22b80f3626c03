import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.kernels import ConvShape, Epilogue, Tiled, conv2d
from graphprune.backend.kernels.geometry import conv_geometry
from graphprune.backend.kernels.plane_tiles import from_plane_tiles, tiled_planes_shape
from graphprune.backend.kernels.sparse_conv2d import plane_tile
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import random_weight, run_kernel

TARGET = parse_target()


def tile_of(weight, shape):
    found = plane_tile(conv_geometry(weight.shape, shape, TARGET.lanes), shape.groups, TARGET, None)
    assert found is not None
    return found


def as_tiles(x, tile):
    """The tiles of [batch, channels, positions] by their definition: the last one, and last vectors, moved back."""
    starts = [min(i * tile.columns, x.shape[2] - tile.columns) for i in range(tile.count)]
    vectors = [min(v, tile.columns - tile.lanes) for v in range(0, tile.columns, tile.lanes)]
    columns = np.concatenate([v + np.arange(tile.lanes) for v in vectors])
    return np.concatenate([[sample[:, start + columns] for start in starts] for sample in x])


def normal(generator, *shape):
    return generator.standard_normal(shape).astype(np.float32)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(4, 15), st.integers(4, 9)),
    channels=st.integers(1, 40) | st.just(1500),
    features=st.integers(1, 40),
    stride=st.sampled_from([1, 1, 2]),
    tiled=st.builds(Tiled, st.booleans(), st.booleans(), st.booleans()),
    residual=st.booleans(),
)
def test_sparse_convolutions_give_the_same_in_every_form(batch, size, channels, features, stride, tiled, residual):
    if stride > 1:
        size = (2 * size[0], 2 * size[1])
        tiled = Tiled(False, tiled.residual, tiled.out)
    generator = np.random.default_rng(channels * features)
    weight, bias = random_weight(generator, (features, channels, 1, 1), 0.8), normal(generator, features)
    x = normal(generator, batch, channels, *size)
    shape = ConvShape(x.shape, (stride, stride))
    tile = tile_of(weight, shape).tile
    expected = torch.conv2d(*(torch.from_numpy(array) for array in (x, weight, bias)), stride=stride).numpy()
    added = normal(generator, *expected.shape)
    kernel = conv2d(weight, bias, shape, Epilogue(True, residual, "relu"), TARGET, sparse=True, tiled=tiled)
    inputs = [as_tiles(x.reshape(*x.shape[:2], -1), tile) if tiled.x else x]
    if residual:
        expected = expected + added
        inputs.append(as_tiles(added.reshape(*added.shape[:2], -1), tile) if tiled.residual else added)
    expected = np.maximum(expected, 0)
    if tiled.out:
        expected = as_tiles(expected.reshape(*expected.shape[:2], -1), tile)
    np.testing.assert_allclose(run_kernel(kernel, *inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch, size", [(1, 14), (2, 7), (1, 9)])
def test_tiles_come_back_as_planes(batch, size):
    weight = np.ones((5, 5, 1, 1), np.float32)
    x = normal(np.random.default_rng(size), batch, 5, size, size)
    tile = tile_of(weight, ConvShape(x.shape)).tile
    tiles = as_tiles(x.reshape(batch, 5, -1), tile)
    assert tiles.shape == tiled_planes_shape(tile, batch, 5)
    np.testing.assert_array_equal(run_kernel(from_plane_tiles(x.shape, tile), tiles), x)


@pytest.mark.parametrize(
    "sparse, kernel, stride, groups, tiled",
    [
        (False, 1, 1, 1, Tiled(x=True)),
        (True, 3, 1, 1, Tiled(out=True)),
        (True, 1, 2, 1, Tiled(x=True)),
        (True, 1, 1, 2, Tiled(out=True)),
    ],
)
def test_only_sparse_1x1_convolutions_take_tiles(sparse, kernel, stride, groups, tiled):
    weight = np.ones((8, 8 // groups, kernel, kernel), np.float32)
    shape = ConvShape((1, 8, 14, 14), (stride, stride), (kernel // 2, kernel // 2), groups=groups)
    with pytest.raises(BackendError, match="1x1 convolutions"):
        conv2d(weight, None, shape, Epilogue(), TARGET, sparse=sparse, tiled=tiled)
