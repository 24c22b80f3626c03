"""Shared by the kernel tests: compiles a kernel for this machine, runs it, and compares with torch in float64."""

from __future__ import annotations

import numpy as np
import torch
import tvm

from graphprune.backend.kernels import Choice, ConvShape, Epilogue, Kernel, conv2d, linear
from graphprune.backend.target import CompileTarget, parse_target

ACTIVATION = {
    "none": lambda y: y,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "hardswish": torch.nn.functional.hardswish,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}

PLAIN = Epilogue()


def run_kernel(kernel: Kernel, *inputs: np.ndarray, target: CompileTarget | None = None) -> np.ndarray:
    """Compile ``kernel``, call it on ``inputs`` and return its output; a poisoned output shows what was not written."""
    compiled = tvm.compile(tvm.IRModule({kernel.name: kernel.prim_func}), target=(target or parse_target()).tvm)
    out = tvm.runtime.tensor(np.full(kernel.output_shape, np.nan, np.float32))
    arrays = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (*inputs, *kernel.constants)]
    compiled[kernel.name](*arrays, out)
    return out.numpy()


def random_weight(generator: np.random.Generator, shape: tuple[int, ...], sparsity: float) -> np.ndarray:
    """Return a weight scaled to keep activations near 1, with a share ``sparsity`` of zeros and an empty first row."""
    weight = generator.standard_normal(shape) / np.sqrt(max(1.0, np.prod(shape[1:]) * (1 - sparsity)))
    weight *= generator.random(shape) >= sparsity
    if sparsity and shape[0] > 1:
        weight[0] = 0
    return weight.astype(np.float32)


def check_linear(
    x_shape: tuple[int, ...],
    features: int,
    *,
    sparse: bool,
    sparsity: float = 0.0,
    epilogue: Epilogue = PLAIN,
    choice: Choice | None = None,
) -> Kernel:
    """Check the linear kernel for these shapes against torch and return it."""
    generator = np.random.default_rng(hash((x_shape, features)) % 2**32)
    weight = random_weight(generator, (features, x_shape[-1]), sparsity)
    bias = generator.standard_normal(features).astype(np.float32) if epilogue.bias else None
    x = generator.standard_normal(x_shape).astype(np.float32)
    kernel = linear(weight, bias, x_shape, epilogue, parse_target(), sparse=sparse, choice=choice)
    product = torch.nn.functional.linear(_double(x), _double(weight), None if bias is None else _double(bias))
    _compare(kernel, x, product, epilogue, generator)
    return kernel


def check_conv2d(
    x_shape: tuple[int, int, int, int],
    weight_shape: tuple[int, int, int, int],
    *,
    sparse: bool,
    sparsity: float = 0.0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    epilogue: Epilogue = PLAIN,
    choice: Choice | None = None,
) -> Kernel:
    """Check the convolution kernel for these shapes against torch and return it."""
    generator = np.random.default_rng(hash((x_shape, weight_shape)) % 2**32)
    weight = random_weight(generator, weight_shape, sparsity)
    bias = generator.standard_normal(weight_shape[0]).astype(np.float32) if epilogue.bias else None
    x = generator.standard_normal(x_shape).astype(np.float32)
    geometry = (stride, padding, dilation, groups)
    kernel = conv2d(weight, bias, ConvShape(x_shape, *geometry), epilogue, parse_target(), sparse=sparse, choice=choice)
    product = torch.nn.functional.conv2d(
        _double(x), _double(weight), None if bias is None else _double(bias), *geometry
    )
    _compare(kernel, x, product, epilogue, generator)
    return kernel


def _compare(kernel: Kernel, x: np.ndarray, product: torch.Tensor, epilogue: Epilogue, generator) -> None:
    assert kernel.output_shape == tuple(product.shape)
    inputs = [x]
    if epilogue.residual:
        inputs.append(generator.standard_normal(product.shape).astype(np.float32))
        product = product + _double(inputs[1])
    expected = ACTIVATION[epilogue.activation](product).numpy()
    np.testing.assert_allclose(run_kernel(kernel, *inputs), expected, rtol=1e-5, atol=5e-6)


def _double(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).double()
