"""Times each CPU kernel against torch on the layers of real networks, in one process and interleaved.

    python tests/benchmarks/bench_kernels.py --suite resnet50 --sparsity 0.9 --threads 1

Torch always runs the layer dense, with the same bias and activation. Times are medians in milliseconds; the last line
weighs each shape by how often it occurs in the network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layer:
    """One layer shape: ``count`` times in the network; ``kernel`` 0 stands for a linear layer on ``size`` tokens."""

    count: int
    out_channels: int
    in_channels: int
    size: int
    kernel: int = 0
    stride: int = 1
    activation: str = "relu"

    def __str__(self) -> str:
        what = f"{self.kernel}x{self.kernel}/{self.stride}" if self.kernel else "linear"
        return f"{what:7} {self.in_channels:4} -> {self.out_channels:4} @ {self.size:3}"


def resnet50(width: float = 1.0) -> list[Layer]:
    """Return the convolutions of torchvision's ResNet-50, with channels scaled by ``width``."""
    layers = [Layer(1, int(64 * width), 3, 224, 7, 2)]
    inputs, size = 64, 56
    for stage, (base, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        inner, outer, stride = int(base * width), int(base * 4 * width), 1 if stage == 0 else 2
        previous = int(inputs * width)
        layers += [
            Layer(1, inner, previous, size * stride if stage else size, 1),
            Layer(1, inner, inner, size * stride if stage else size, 3, stride),
            Layer(1, outer, previous, size * stride if stage else size, 1, stride, "none"),
            Layer(blocks, outer, inner, size, 1),
            Layer(blocks - 1, inner, outer, size, 1),
            Layer(blocks - 1, inner, inner, size, 3),
        ]
        inputs, size = base * 4, size // 2
    return layers


def transformer(width: int, blocks: int, tokens: int = 128) -> list[Layer]:
    """Return the linear layers of a BERT-like encoder of ``width`` features."""
    return [
        Layer(4 * blocks, width, width, tokens, activation="none"),
        Layer(blocks, 4 * width, width, tokens, activation="gelu"),
        Layer(blocks, width, 4 * width, tokens, activation="none"),
    ]


SUITES: dict[str, Callable[[], list[Layer]]] = {
    "resnet50": resnet50,
    "resnet50-half": lambda: resnet50(0.5),
    "minilm": lambda: transformer(384, 6),
    "bert": lambda: transformer(768, 12),
    "minilm-token": lambda: transformer(384, 6, tokens=1),
    "bert-token": lambda: transformer(768, 12, tokens=1),
}


def random_weight(layer: Layer, sparsity: float) -> np.ndarray:
    """Return a random float32 weight of ``layer`` with a share ``sparsity`` of zeros."""
    generator = np.random.default_rng(0)
    shape = (layer.out_channels, layer.in_channels) + ((layer.kernel, layer.kernel) if layer.kernel else ())
    weight = generator.standard_normal(shape, dtype=np.float32)
    return weight * (generator.random(shape) >= sparsity).astype(np.float32)


def candidates(layer: Layer, sparsity: float) -> tuple[Callable[[], object], Callable[[], object], str]:
    """Return (torch's layer, the compiled kernel, the kernel's note), both ready to be called."""
    import torch
    import tvm

    from graphprune.backend.kernels import Epilogue, conv2d, linear
    from graphprune.backend.target import parse_target

    target = parse_target("llvm -mcpu=native")
    weight = random_weight(layer, sparsity)
    bias = np.ones(layer.out_channels, np.float32)
    epilogue = Epilogue(bias=True, activation=layer.activation)
    sparse = sparsity > 0
    if layer.kernel:
        x_shape = (1, layer.in_channels, layer.size, layer.size)
        pads = (layer.kernel // 2,) * 2
        strides = (layer.stride,) * 2
        kernel = conv2d(weight, bias, x_shape, strides, pads, (1, 1), 1, epilogue, target, sparse=sparse)
    else:
        x_shape = (layer.size, layer.in_channels)
        kernel = linear(weight, bias, x_shape, epilogue, target, sparse=sparse)
    x = np.random.default_rng(1).standard_normal(x_shape, dtype=np.float32)
    tensors = [torch.from_numpy(array) for array in (x, weight, bias)]
    activation = {"relu": torch.relu_, "none": lambda y: y, "gelu": torch.nn.functional.gelu}[layer.activation]

    def run_torch() -> torch.Tensor:
        if layer.kernel:
            product = torch.nn.functional.conv2d(*tensors, stride=layer.stride, padding=layer.kernel // 2)
        else:
            product = torch.nn.functional.linear(*tensors)
        return activation(product)

    module = tvm.compile(tvm.IRModule({kernel.name: kernel.prim_func}), target=target.tvm)
    out = tvm.runtime.empty(kernel.output_shape, "float32")
    arrays = [tvm.runtime.tensor(array) for array in (x, *kernel.constants)]
    function = module[kernel.name]
    function(*arrays, out)
    expected = run_torch().numpy()
    error = np.abs(out.numpy() - expected).max() / np.abs(expected).max()
    if not error < 1e-5:
        raise SystemExit(f"{layer}: the kernel is wrong, relative error {error:.1e}")
    return run_torch, lambda: function(*arrays, out), kernel.note


def interleaved_medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median time of each function in milliseconds, measured in turns after two warm-up rounds."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 2):
        for function, record in zip(functions, times):
            start = time.perf_counter()
            function()
            record.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(record[2:]) for record in times]


def main() -> None:
    """Parse the command line, time every layer of the suite and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, default="resnet50")
    parser.add_argument("--sparsity", type=float, default=0.0, help="share of zero weights; 0 times the dense kernels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="time only the layers whose description contains this text")
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    layers = [layer for layer in SUITES[options.suite]() if options.only in str(layer)]
    total_torch = total_kernel = 0.0
    with torch.inference_mode():
        for layer in layers:
            run_torch, run_kernel, note = candidates(layer, options.sparsity)
            torch_ms, kernel_ms = interleaved_medians([run_torch, run_kernel], options.rounds)
            total_torch += layer.count * torch_ms
            total_kernel += layer.count * kernel_ms
            positions = (layer.size // layer.stride) ** 2 if layer.kernel else layer.size
            macs = (
                layer.out_channels * layer.in_channels * max(layer.kernel, 1) ** 2 * positions * (1 - options.sparsity)
            )
            times = f"torch {torch_ms:7.3f}  kernel {kernel_ms:7.3f}  {torch_ms / kernel_ms:5.2f}x"
            print(f"{layer.count:2} x {layer}  {times}  {2e-6 * macs / kernel_ms:5.1f} GF/s  {note}", flush=True)
    print(f"network: torch {total_torch:.2f} ms, kernels {total_kernel:.2f} ms, {total_torch / total_kernel:.2f}x")


if __name__ == "__main__":
    main()
