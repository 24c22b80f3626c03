import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.kernels import ACTIVATIONS, Epilogue, linear
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError
from tests.backend.kernel_harness import check_linear, run_kernel


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_with_bias_and_residual(activation, sparse):
    epilogue = Epilogue(bias=True, residual=True, activation=activation)
    check_linear((9, 31), 21, sparse=sparse, sparsity=0.7 * sparse, epilogue=epilogue)


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "sigmoid", "gelu_tanh", "hardswish", "relu6"])
def test_activations_hold_far_from_zero(activation):
    import torch

    from tests.backend.kernel_harness import ACTIVATION

    x = np.linspace(-60, 60, 4096, dtype=np.float32).reshape(-1, 8)
    kernel = linear(
        np.eye(8, dtype=np.float32), None, x.shape, Epilogue(activation=activation), parse_target(), sparse=False
    )
    expected = ACTIVATION[activation](torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(run_kernel(kernel, x), expected, rtol=4e-7, atol=1e-6)


@pytest.mark.parametrize("x_shape, features", [((128, 384), 384), ((2, 197, 40), 50), ((1, 1, 301), 77), ((3, 1), 1)])
@pytest.mark.parametrize("sparsity", [None, 0.0, 0.9, 1.0])
def test_sizes_of_real_layers(x_shape, features, sparsity):
    check_linear(x_shape, features, sparse=sparsity is not None, sparsity=sparsity or 0.0, epilogue=Epilogue(bias=True))


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 21), min_size=1, max_size=2),
    depth=st.integers(1, 70),
    features=st.integers(1, 40),
    sparse=st.booleans(),
    sparsity=st.sampled_from([0.0, 0.5, 0.95]),
    residual=st.booleans(),
)
def test_any_size(tokens, depth, features, sparse, sparsity, residual):
    epilogue = Epilogue(bias=True, residual=residual, activation="relu")
    check_linear((*tokens, depth), features, sparse=sparse, sparsity=sparsity, epilogue=epilogue)


@pytest.mark.parametrize("tokens, sparsity", [(1, 0.7), (9, 0.5), (33, 0.5), (70, 0.8)])
def test_rows_of_any_length_are_loaded_together(tokens, sparsity):
    check_linear((tokens, 131), 37, sparse=True, sparsity=sparsity, epilogue=Epilogue(bias=True))


def test_one_token_with_gaps_that_a_byte_cannot_hold():
    kernel = check_linear((1, 2000), 203, sparse=True, sparsity=0.985, epilogue=Epilogue(bias=True, residual=True))
    assert "8-bit column gaps" in kernel.note


@pytest.mark.parametrize("depth, features, sparsity", [(1000, 3, 0.9), (5000, 16, 0.999)])
def test_one_token_takes_csr_where_groups_of_rows_would_take_more_memory(depth, features, sparsity):
    kernel = check_linear((1, depth), features, sparse=True, sparsity=sparsity)
    assert "csr" in kernel.note


def test_one_token_of_more_features_than_16_bits_count():
    kernel = check_linear((1, 66_000), 9, sparse=True, sparsity=0.99)
    assert "32-bit" in kernel.note


def test_long_reductions_are_cut_into_blocks():
    kernel = check_linear((64, 1536), 24, sparse=True, sparsity=0.8)
    assert "blocks" in kernel.note and "1 blocks" not in kernel.note


@pytest.mark.parametrize("sparse", [False, True])
def test_more_threads_give_the_same_bits(sparse):
    code = (
        "import numpy as np, sys\n"
        "from tests.backend.kernel_harness import run_kernel, random_weight\n"
        "from graphprune.backend.kernels import Epilogue, linear\n"
        "from graphprune.backend.target import parse_target\n"
        "g = np.random.default_rng(0)\n"
        f"w = random_weight(g, (70, 90), {0.8 * sparse})\n"
        "x = g.standard_normal((37, 90)).astype('f')\n"
        f"k = linear(w, None, x.shape, Epilogue(), parse_target(), sparse={sparse})\n"
        "sys.stdout.buffer.write(run_kernel(k, x).tobytes())\n"
    )
    root = Path(__file__).parents[2]
    outputs = []
    for threads in ("1", "2"):
        environment = {**os.environ, "TVM_NUM_THREADS": threads, "PYTHONPATH": str(root)}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        outputs.append(ran.stdout)
    assert len(outputs[0]) == 37 * 70 * 4
    assert outputs[0] == outputs[1]


def test_refuses_what_it_cannot_compute():
    weight = np.ones((4, 6), np.float32)
    target = parse_target()
    with pytest.raises(BackendError, match="does not fit"):
        linear(weight, None, (3, 5), Epilogue(), target, sparse=False)
    with pytest.raises(BackendError, match="float32"):
        linear(weight.astype(np.float64), None, (3, 6), Epilogue(), target, sparse=True)
    with pytest.raises(BackendError, match="fixed"):
        linear(weight, None, ("batch", 6), Epilogue(), target, sparse=False)
    with pytest.raises(BackendError, match="bias of 4"):
        linear(weight, np.ones(3, np.float32), (3, 6), Epilogue(bias=True), target, sparse=False)
    with pytest.raises(BackendError, match="activation"):
        Epilogue(activation="mish")
