import numpy as np
import pytest

from graphprune.backend.kernels import matmul
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import run_kernel


@pytest.mark.parametrize(
    "a_shape, b_shape, transpose_b",
    [
        ((1, 12, 64, 32), (1, 12, 64, 32), True),
        ((1, 12, 64, 64), (1, 12, 64, 32), False),
        ((2, 197, 17), (2, 17, 197), False),
        ((3, 7, 5), (3, 9, 5), True),
        ((3, 7, 5), (5, 9), False),
        ((1, 1), (1, 1), False),
        ((4, 1, 33), (4, 3, 33), True),
    ],
)
def test_matches_numpy(a_shape, b_shape, transpose_b):
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(shape).astype(np.float32) for shape in (a_shape, b_shape))
    kernel = matmul(a_shape, b_shape, parse_target(), transpose_b=transpose_b)
    expected = a.astype(np.float64) @ (np.swapaxes(b, -1, -2) if transpose_b else b)
    assert kernel.output_shape == expected.shape
    np.testing.assert_allclose(run_kernel(kernel, a, b), expected, rtol=1e-5, atol=1e-5)


def test_refuses_unequal_axes():
    with pytest.raises(BackendError, match="reduction"):
        matmul((2, 3), (4, 5), parse_target())
    with pytest.raises(BackendError, match="batch"):
        matmul((2, 3, 4), (3, 4, 5), parse_target())
