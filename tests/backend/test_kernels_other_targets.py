"""Kernels follow the target's vector unit: narrower ones run here too, wider ones are compiled and inspected."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import tvm

from graphprune.backend.kernels import ConvShape, Epilogue, conv2d, linear
from graphprune.backend.target import parse_target
from tests.backend.kernel_harness import random_weight, run_kernel

FUSED = Epilogue(bias=True, activation="relu")


def layers(target, sparse):
    generator = np.random.default_rng(0)
    weight = random_weight(generator, (24, 40, 3, 3), 0.8 * sparse)
    bias = generator.standard_normal(24).astype(np.float32)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    x = generator.standard_normal((1, 40, 28, 28)).astype(np.float32)
    convolution = conv2d(weight, bias, ConvShape(x.shape, *geometry), FUSED, target, sparse=sparse)
    product = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), *geometry)
    yield convolution, x, product.relu().numpy()
    weight = random_weight(generator, (24, 100), 0.8 * sparse)
    x = generator.standard_normal((37, 100)).astype(np.float32)
    product = torch.nn.functional.linear(*map(torch.from_numpy, (x, weight, bias)))
    yield linear(weight, bias, x.shape, FUSED, target, sparse=sparse), x, product.relu().numpy()


@pytest.mark.parametrize("sparse", [False, True])
def test_the_baseline_of_this_machine_computes_the_same(sparse):
    target = parse_target("llvm")
    for kernel, x, expected in layers(target, sparse):
        np.testing.assert_allclose(run_kernel(kernel, x, target=target), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mcpu, register", [("znver3", "ymm"), ("znver4", "zmm")])
def test_sums_stay_in_registers_of_the_targets_width(mcpu, register, sparse):
    target = parse_target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": mcpu})
    for kernel, _, _ in layers(target, sparse):
        compiled = tvm.compile(tvm.IRModule({kernel.name: kernel.prim_func}), target=target.tvm)
        assembly = compiled.mod.inspect_source("asm").splitlines()
        multiply_adds = [line for line in assembly if "vfmadd" in line and register in line]
        assert len(multiply_adds) >= 8
        on_stack = [line for line in multiply_adds if "(%rsp" in line]
        assert len(on_stack) <= 0.1 * len(multiply_adds)
        # Sums in memory would show as stores of a multiply-add's result right behind it.
        results = [(line.split()[-1], after) for line, after in pairwise(assembly) if line in multiply_adds]
        stored = [result for result, after in results if "vmov" in after and after.split()[1] == f"{result},"]
        assert len(stored) <= 0.1 * len(multiply_adds)
