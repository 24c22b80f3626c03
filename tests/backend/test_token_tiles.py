import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.kernels import Epilogue, Tiled, linear
from graphprune.backend.kernels.token_tiles import from_tiles, tiled_layer_norm, tiled_shape, to_tiles, token_tile
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import random_weight, run_kernel


def as_tiles(x, tile):
    """The tiles of [tokens, features] by their definition: token by token, the last one repeated."""
    _, _, pitch = tiled_shape(tile, x.shape[1])
    starts = [min(i * tile.columns, len(x) - tile.columns) for i in range(tile.count)]
    return np.stack([x[np.minimum(start + np.arange(pitch), len(x) - 1)].T for start in starts])


def normal(generator, *shape):
    return generator.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("tokens, features", [(128, 48), (197, 33), (41, 17), (3, 5), (9, 300), (2, 16)])
def test_changes_of_form_and_layer_norm(tokens, features):
    generator = np.random.default_rng(tokens)
    x, (scale, shift) = 3 + normal(generator, tokens, features), normal(generator, 2, features)
    tile = token_tile(x.shape, parse_target())
    tiles = as_tiles(x, tile)
    np.testing.assert_array_equal(run_kernel(to_tiles(x.shape, tile), x), tiles)
    np.testing.assert_array_equal(run_kernel(from_tiles(x.shape, tile), tiles), x)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (features,)).numpy() * scale + shift
    normalised = run_kernel(tiled_layer_norm(features, 1e-5, tile), tiles, scale, shift)
    np.testing.assert_allclose(normalised, as_tiles(expected, tile), rtol=1e-4, atol=1e-5)


@settings(max_examples=16, deadline=None)
@given(
    tokens=st.integers(2, 90),
    depth=st.integers(1, 70) | st.just(700),
    features=st.integers(1, 40),
    tiled=st.builds(Tiled, st.booleans(), st.booleans(), st.booleans()),
    residual=st.booleans(),
    activation=st.sampled_from(["none", "gelu"]),
)
def test_sparse_layers_give_the_same_in_every_form(tokens, depth, features, tiled, residual, activation):
    if tiled.out:
        tiled = Tiled(tiled.x, True, True)
    generator = np.random.default_rng(depth * tokens)
    weight, bias = random_weight(generator, (features, depth), 0.8), normal(generator, features)
    x, added = normal(generator, tokens, depth), normal(generator, tokens, features)
    target = parse_target()
    tile = token_tile(x.shape, target)
    epilogue = Epilogue(bias=True, residual=residual, activation=activation)
    kernel = linear(weight, bias, x.shape, epilogue, target, sparse=True, tiled=tiled)
    inputs = [as_tiles(x, tile) if tiled.x else x]
    if residual:
        inputs.append(as_tiles(added, tile) if tiled.residual else added)
    expected = torch.nn.functional.linear(*(torch.from_numpy(array).double() for array in (x, weight, bias)))
    if residual:
        expected = expected + torch.from_numpy(added)
    if activation == "gelu":
        expected = torch.nn.functional.gelu(expected)
    expected = as_tiles(expected.numpy(), tile) if tiled.out else expected.numpy()
    np.testing.assert_allclose(run_kernel(kernel, *inputs), expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("sparse, tokens", [(False, 20), (True, 1)])
def test_only_sparse_layers_on_several_tokens_take_tiles(sparse, tokens):
    weight = np.eye(8, dtype=np.float32)
    with pytest.raises(BackendError, match="several tokens"):
        linear(weight, None, (tokens, 8), Epilogue(), parse_target(), sparse=sparse, tiled=Tiled(x=True))
