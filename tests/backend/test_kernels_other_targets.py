"""Kernels follow the target's vector unit: narrower ones run here too, wider ones are compiled and inspected."""

import re

import numpy as np
import pytest
import torch
import tvm
from tvm.target import codegen

from graphprune.backend.kernels import Choice, ConvShape, Epilogue, conv2d, linear
from graphprune.backend.target import parse_target
from tests.backend.assembly import NEON, innermost_loops, multiply_adds, stored_sums, x86
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
    yield linear(weight, bias, (1, 100), FUSED, target, sparse=sparse), x[:1], product[:1].relu().numpy()


@pytest.mark.parametrize("sparse", [False, True])
def test_the_baseline_of_this_machine_computes_the_same(sparse):
    target = parse_target("llvm")
    for kernel, x, expected in layers(target, sparse):
        np.testing.assert_allclose(run_kernel(kernel, x, target=target), expected, rtol=1e-5, atol=1e-5)


TARGETS = {
    "znver3": ({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver3"}, x86("ymm")),
    "znver4": ({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, x86("zmm")),
    "cortex-a72": ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}, NEON),
}


def convolution(target, sparse, channels, plane, *, kernel=3, groups=1, out_channels=96, winograd=0):
    weight = random_weight(np.random.default_rng(0), (out_channels, channels // groups, kernel, kernel), 0.8 * sparse)
    shape = ConvShape((1, channels, plane, plane), padding=(kernel // 2,) * 2, groups=groups)
    bias = np.ones(out_channels, np.float32)
    return conv2d(weight, bias, shape, FUSED, target, sparse=sparse, choice=Choice(winograd=winograd))


def product(target, sparse):
    weight = random_weight(np.random.default_rng(0), (96, 100), 0.8 * sparse)
    return linear(weight, np.ones(96, np.float32), (64, 100), FUSED, target, sparse=sparse)


KERNELS = {
    "sparse 3x3": (lambda target: convolution(target, True, 40, 28), "sparse_conv2d"),
    "sparse 3x3 in groups": (lambda target: convolution(target, True, 48, 28, groups=4), "sparse_conv2d"),
    "sparse 1x1": (lambda target: convolution(target, True, 300, 14, kernel=1), "sparse_conv2d"),
    "sparse linear": (lambda target: product(target, True), "sparse_linear"),
    "dense 3x3": (lambda target: convolution(target, False, 40, 28, out_channels=24), "dense_conv2d"),
    "dense 1x1": (lambda target: convolution(target, False, 64, 14, kernel=1), "dense_conv2d"),
    "dense 3x3 on small planes": (
        lambda target: convolution(target, False, 64, 14, out_channels=256),
        "dense_small_conv2d",
    ),
    "dense 3x3 by Winograd's algorithm": (
        lambda target: convolution(target, False, 64, 28, winograd=6),
        "winograd_conv2d",
    ),
    "dense linear": (lambda target: product(target, False), "dense_linear"),
}


def compiled_for(target, kernel):
    family = {"x86_64": "x86", "aarch64": "aarch64"}[str(target.spec["mtriple"]).partition("-")[0]]
    if not any(str(name).startswith(family) for name in codegen.llvm_get_targets()):
        pytest.skip(f"this LLVM cannot compile for {family}")
    return tvm.compile(tvm.IRModule({kernel.name: kernel.prim_func}), target=target.tvm)


@pytest.mark.parametrize("layer", KERNELS)
@pytest.mark.parametrize("processor", TARGETS)
def test_sums_stay_in_registers_of_the_targets_width(processor, layer):
    spec, isa = TARGETS[processor]
    make, name = KERNELS[layer]
    target = parse_target(spec)
    kernel = make(target)
    assert kernel.name == name
    loops = innermost_loops(compiled_for(target, kernel).mod.inspect_source("asm"))
    # Eight sums at least, to keep two multiply-add units busy over the latency of a multiply-add.
    hot = [loop for loop in loops if multiply_adds(loop, isa) >= 8]
    assert hot
    if name == "winograd_conv2d":  # its transforms store each sum, after few products; the product between them counts
        hot = [max(hot, key=lambda loop: multiply_adds(loop, isa) / len(loop))]
        assert multiply_adds(hot[0], isa) >= 32
    for loop in hot:
        products = multiply_adds(loop, isa)
        # A convolution's unrolled taps share operands, and LLVM keeps more of them than there are registers left.
        assert stored_sums(loop, isa) <= (0.03 * products if name == "dense_conv2d" else 0)
        assert sum(isa.on_stack.search(line) is not None for line in loop) <= 0.15 * products


@pytest.mark.parametrize("layer", ["sparse 1x1", "sparse 3x3", "sparse linear"])
def test_sums_are_not_memory_that_must_be_written_back(layer):
    target = parse_target(TARGETS["znver3"][0])
    source = compiled_for(target, KERNELS[layer][0](target)).mod.inspect_source("ll")
    sizes = [int(size) for size in re.findall(r"call ptr %\d+\(i32 1, i32 %\w+, i64 (\d+), i32 2, i32 32\)", source)]
    assert sizes and all(size > 4 * target.lanes * target.registers for size in sizes)


@pytest.mark.parametrize("processor, told", [("znver3", True), ("haswell", False), ("cortex-a72", False)])
def test_bit_fields_are_taken_out_by_one_instruction_where_that_is_fast(processor, told):
    architecture = "aarch64" if processor.startswith("cortex") else "x86_64"
    target = parse_target({"kind": "llvm", "mtriple": f"{architecture}-linux-gnu", "mcpu": processor})
    weight = random_weight(np.random.default_rng(0), (96, 100), 0.8)
    compiled = compiled_for(target, linear(weight, None, (1, 100), Epilogue(), target, sparse=True))
    assert target.bextr == told
    assert ("\tbextrq\t" in compiled.mod.inspect_source("asm")) == told


def test_object_files_are_for_the_targets_machine(tmp_path):
    target = parse_target(TARGETS["cortex-a72"][0])
    assert (target.lanes, target.registers) == (4, 30)
    path = tmp_path / "kernel.o"
    compiled_for(target, product(target, True)).mod.write_to_file(str(path), "o")
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == 183  # AArch64


def test_spilled_sums_would_be_seen():
    kept = ["fmla\tv1.4s, v2.4s, v3.s[0]", "ldr\tq2, [x0]", "str\tq2, [sp, #16]"]
    assert stored_sums(kept, NEON) == 0 and multiply_adds(kept, NEON) == 1
    assert stored_sums([*kept, "stp\tq1, q2, [sp]"], NEON) > 0
    assert stored_sums(["str\tq1, [sp]", "ldr\tq1, [sp]", *kept], NEON) > 0
    spilled = ["vfmadd231ps\t(%rax), %zmm1, %zmm2", "vmovups\t%zmm2, 64(%rsp)"]
    assert stored_sums(spilled, x86("zmm")) > 0 and stored_sums(spilled, x86("ymm")) == 0
    text = "\n".join([".LBB0_1:", ".LBB0_2:", "\tnop", "\tjne\t.LBB0_2", "\tb.ne\t.LBB0_1"])
    assert innermost_loops(text) == [[".LBB0_2:", "nop", "jne\t.LBB0_2"]]
