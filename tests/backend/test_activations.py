from typing import Any

import numpy as np
import pytest
import torch
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels import Kernel
from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.emit import arguments, building, load, store
from tests.backend.kernel_harness import ACTIVATION, run_kernel

LANES = 8
APPROXIMATED = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")


def _apply(activation: str, x: np.ndarray) -> np.ndarray:
    with building("activation") as emitter:
        buffers = arguments(x.shape, x.shape, [], residual=False)
        steps: Any = x.size // LANES
        with T.serial(steps) as i:
            store(buffers.out, i * LANES, activate(activation, load(buffers.x, i * LANES, LANES), LANES), LANES)
    return run_kernel(Kernel("activation", emitter.function, (), x.shape), x)


def _every_magnitude() -> np.ndarray:
    """Return 2^19 numbers: a fine grid around zero, and both signs of every magnitude that float32 has."""
    powers = np.arange(2**17, dtype=np.uint32) * (0x7F800000 // 2**17)
    magnitudes = powers.view(np.float32)
    grid = np.linspace(-12, 12, 2**18, dtype=np.float32)
    return np.concatenate([grid, magnitudes, -magnitudes])


@pytest.mark.parametrize("activation", APPROXIMATED)
def test_activations_are_close_for_every_magnitude(activation):
    x = _every_magnitude()
    expected = ACTIVATION[activation](torch.from_numpy(x).double()).numpy()
    # Half a unit in the last place of large results, and 5e-7.
    np.testing.assert_allclose(_apply(activation, x), expected, rtol=2e-7, atol=5e-7)


@pytest.mark.parametrize("activation", ACTIVATION)
def test_what_is_no_finite_number(activation):
    x = np.full(LANES, np.nan, np.float32)
    x[:2] = np.inf, -np.inf
    expected = ACTIVATION[activation](torch.from_numpy(x).double()).numpy()
    if activation in ("gelu", "gelu_tanh", "silu"):
        expected[1] = 0  # the limit; torch multiplies by zero and gets NaN
    np.testing.assert_allclose(_apply(activation, x), expected, atol=1e-35)
