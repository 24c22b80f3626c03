"""Attention in one kernel against torch in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.kernels import attention
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import run_kernel


def check(q_shape, k_shape, v_shape, *, mask=None, causal=False, scale=0.3, target=None):
    """Compare with torch and return the kernel."""
    generator = np.random.default_rng(0)
    target = target or parse_target()
    q, k, v = (generator.standard_normal(shape).astype(np.float32) for shape in (q_shape, k_shape, v_shape))
    mask_shape = None if mask is None else mask.shape
    kernel = attention(q_shape, k_shape, v_shape, mask_shape, target, scale=scale, causal=causal)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x).double() for x in (q, k, v)),
        attn_mask=None if mask is None else torch.from_numpy(mask).double(),
        scale=scale, is_causal=causal, enable_gqa=len(q_shape) > 3,
    ).numpy()  # fmt: skip
    actual = run_kernel(kernel, q, k, v, *([] if mask is None else [mask]), target=target)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)
    return kernel


@pytest.mark.parametrize(
    "q_shape, k_shape, v_shape",
    [
        ((1, 12, 128, 32), (1, 12, 128, 32), (1, 12, 128, 32)),
        ((2, 197, 64), (2, 197, 64), (2, 197, 64)),
        ((2, 6, 33, 16), (2, 2, 70, 16), (2, 2, 70, 24)),
        ((1, 3, 1, 8), (1, 3, 40, 8), (1, 3, 40, 8)),
        ((5, 3), (1, 3), (1, 2)),
    ],
    ids=["one block", "overlapping blocks", "grouped queries", "one query", "narrower than a vector"],
)
def test_matches_torch(q_shape, k_shape, v_shape):
    check(q_shape, k_shape, v_shape)


def test_causal():
    check((2, 50, 16), (2, 50, 16), (2, 50, 16), causal=True)


@pytest.mark.parametrize("mask_shape", [(1, 45), (20, 45), (2, 1, 20, 45), (1, 3, 1, 45), (2, 3, 20, 1)])
def test_masks_broadcast(mask_shape):
    mask = np.random.default_rng(1).standard_normal(mask_shape).astype(np.float32)
    mask[..., ::3] = -np.inf if mask_shape[-1] > 1 else 0
    check((2, 3, 20, 8), (2, 3, 45, 8), (2, 3, 45, 8), mask=mask)


def test_a_row_without_any_key_is_zero():
    mask = np.zeros((4, 9), np.float32)
    mask[2] = -np.inf
    shape = (3, 4, 8), (3, 9, 8), (3, 9, 8)
    kernel = attention(*shape, mask.shape, parse_target(), scale=1.0)
    q, k, v = (np.ones(sizes, np.float32) for sizes in shape)
    out = run_kernel(kernel, q, k, v, mask)
    assert (out[:, 2] == 0).all() and (out[:, [0, 1, 3]] == 1).all()


sizes = st.integers(1, 70)


@settings(max_examples=12, deadline=None)
@given(heads=st.integers(1, 3), queries=sizes, keys=sizes, depth=sizes, width=sizes, causal=st.booleans())
def test_any_sizes(heads, queries, keys, depth, width, causal):
    check((heads, queries, depth), (heads, keys, depth), (heads, keys, width), causal=causal and queries <= keys)


def test_narrower_vectors():
    check((2, 30, 12), (2, 41, 12), (2, 41, 20), target=parse_target("llvm"))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 8, 4), (3, 8, 4), (3, 8, 4)),
        ((4, 8, 16), (4, 8, 15), (4, 8, 16)),
        ((2, 4096, 64), (2, 4096, 64), (2, 4096, 64)),
    ],
    ids=["batch", "depth", "too many keys"],
)
def test_refuses(shapes):
    with pytest.raises(BackendError, match="attention"):
        attention(*shapes, None, parse_target(), scale=1.0)
