"""Max pooling of any geometry against torch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.pool_kernels import max_pool2d_kernel
from graphprune.backend.target import parse_target
from tests.backend.kernel_harness import run_kernel


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(5, 90), st.integers(5, 90)),
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padded=st.booleans(),
    ceiling=st.booleans(),
)
def test_any_geometry(size, window, stride, padded, ceiling):
    padding = tuple(extent // 2 * padded for extent in window)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 3
    expected = torch.nn.functional.max_pool2d(x, window, stride, padding, ceil_mode=ceiling).numpy()
    kernel = max_pool2d_kernel(tuple(x.shape), expected.shape, window, stride, padding, parse_target())
    assert np.array_equal(run_kernel(kernel, x.numpy()), expected)
