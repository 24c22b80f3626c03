"""Finds, for each kind of layer, the sparsity from which on the sparse CPU kernel beats our dense one.

    TVM_NUM_THREADS=1 python tests/benchmarks/bench_break_even.py [KIND...]

Times are CPU time of one thread, the fastest of several interleaved runs, so that a busy machine does little harm. The
numbers go into ``graphprune/break_even.py``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import tvm

from graphprune.backend.kernels import ConvShape, Epilogue, Kernel, conv2d, linear
from graphprune.backend.target import CompileTarget, parse_target

SPARSITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Layer = tuple[int, int, int, int, int]
# kind -> (out channels, in channels, plane size or tokens, kernel size or 0 for linear, stride)
LAYERS: dict[str, tuple[Layer, ...]] = {
    "linear": ((384, 384, 128, 0, 1), (1536, 384, 128, 0, 1), (384, 1536, 128, 0, 1)),
    "linear_vector": ((1000, 2048, 1, 0, 1), (4096, 4096, 1, 0, 1)),
    "linear_few_rows": ((1000, 2048, 2, 0, 1), (768, 768, 6, 0, 1), (4096, 4096, 8, 0, 1)),
    "conv1x1": ((256, 64, 56, 1, 1), (128, 512, 28, 1, 1), (1024, 256, 14, 1, 1), (512, 2048, 7, 1, 1)),
    "conv_kxk": ((128, 128, 56, 3, 2), (256, 256, 28, 3, 2), (512, 512, 14, 3, 2), (512, 512, 7, 3, 1)),
    "conv_winograd": ((64, 64, 56, 3, 1), (128, 128, 28, 3, 1), (256, 256, 14, 3, 1)),
}


def _kernel(layer: Layer, sparsity: float, target: CompileTarget) -> tuple[Kernel, np.ndarray]:
    out_channels, in_channels, size, window, stride = layer
    generator = np.random.default_rng(0)
    shape = (out_channels, in_channels, window, window) if window else (out_channels, in_channels)
    weight = generator.standard_normal(shape, dtype=np.float32)
    weight *= generator.random(shape) >= sparsity
    bias = np.ones(out_channels, np.float32)
    epilogue = Epilogue(bias=True, activation="relu")
    if window:
        x = generator.standard_normal((1, in_channels, size, size), dtype=np.float32)
        padding = (window // 2, window // 2)
        shape = ConvShape(x.shape, (stride, stride), padding)
        return conv2d(weight, bias, shape, epilogue, target, sparse=sparsity > 0), x
    x = generator.standard_normal((size, in_channels), dtype=np.float32)
    return linear(weight, bias, x.shape, epilogue, target, sparse=sparsity > 0), x


def _callable(layer: Layer, sparsity: float, target: CompileTarget) -> Callable[[], object]:
    kernel, x = _kernel(layer, sparsity, target)
    function = kernel.prim_func.with_attr("global_symbol", "kernel").with_attr("tirx.is_scheduled", True)
    module = tvm.compile(tvm.IRModule({"kernel": function}), target=target.tvm)
    arrays = [tvm.runtime.tensor(array) for array in (x, *kernel.constants)]
    out = tvm.runtime.empty(kernel.output_shape, kernel.output_dtype)
    run = module["kernel"]
    return lambda: run(*arrays, out)


def _fastest(functions: list[Callable[[], object]], seconds: float = 0.4) -> list[float]:
    best = [math.inf] * len(functions)
    for function in functions:
        function()
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            start = time.thread_time()
            function()
            best[i] = min(best[i], time.thread_time() - start)
    return best


def _break_even(speedups: list[float]) -> float:
    """Return the sparsity at which the speed-up passes 1, on a straight line between the measured ones."""
    points = list(zip(SPARSITIES, speedups, strict=True))
    if speedups[0] >= 1:
        return SPARSITIES[0]
    for (low, before), (high, after) in pairwise(points):
        if before < 1 <= after:
            return low + (high - low) * (1 - before) / (after - before)
    return 1.0


def main() -> None:
    """Measure every kind; print speed-ups by sparsity, means over its layers, and where these, and the last, pass 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*LAYERS, []], default=list(LAYERS))
    kinds = parser.parse_args().kinds
    tvm.get_global_func("runtime.config_threadpool")(1, 1)
    target = parse_target("llvm -mcpu=native")
    print(f"{'kind':16}" + "".join(f"{sparsity:8.0%}" for sparsity in SPARSITIES) + "   break-even (last layer's)")
    for kind in kinds:
        by_layer = []
        for layer in LAYERS[kind]:
            dense, *sparse = _fastest([_callable(layer, sparsity, target) for sparsity in (0.0, *SPARSITIES)])
            by_layer.append([dense / seconds for seconds in sparse])
        speedups = np.exp(np.log(by_layer).mean(axis=0)).tolist()
        cells = "".join(f"{value:7.2f}x" for value in speedups)
        last = max(map(_break_even, by_layer))
        print(f"{kind:16}{cells}   {_break_even(speedups):.2f} ({last:.2f})", flush=True)


if __name__ == "__main__":
    main()
