"""Times each CPU kernel on the layers of real networks: against torch, and against this machine's multiply-add peak.

    python tests/benchmarks/bench_kernels.py --suite resnet50 --sparsity 0.9 [--threads 1] [--no-torch]
    python tests/benchmarks/bench_kernels.py --suite llm-token --sparsity 0.9 --cold

Torch always runs the layer dense, with the same bias and activation. Everything takes turns: our kernel, torch, and a
loop of multiply-adds in registers, which is the peak. Times are medians in milliseconds. "of peak" is the share of that
peak which the multiply-adds of the non-zeros alone reach: the fastest run of each, as both are bounds. M, K, N are
output channels, length of the reduction, and positions. The last lines weigh each shape by how often it occurs in the
network. Sparse linear layers on many tokens, and sparse 1x1 convolutions, take and give activations as they do there,
in tiles or as torch has them; their last column says which. ``--cold`` rotates through so many copies of a layer's
weights that they come from memory, not from a cache.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
from fma_peak import fma_loop
from layer_suites import SUITES, Layer

from graphprune.backend import get_backend
from graphprune.backend.kernels.contract import NOT_TILED
from graphprune.backend.kernels.plane_tiles import tiled_planes_shape
from graphprune.backend.kernels.token_tiles import tiled_shape, token_tile
from graphprune.backend.target import CompileTarget, parse_target
from graphprune.backend.tuning.timing import compiled_calls
from graphprune.measure import interleaved
from graphprune.runtime import set_num_threads

_COLD_BYTES = 128 * 2**20  # of rotating weights: several times a large last-level cache's share
_ACTIVATIONS = {"relu": torch.relu_, "none": lambda y: y, "gelu": torch.nn.functional.gelu}
_GOAL = 0.55


def _torch_layer(layer: Layer, cold: bool) -> Callable[[], object]:
    fused = layer.fused(0.0)
    x = torch.randn(fused.x_shape)
    weight, bias = torch.from_numpy(fused.weight), torch.ones(layer.out_channels)
    copies = 1 + (_COLD_BYTES // fused.weight.nbytes if cold else 0)
    weights = itertools.cycle([weight.clone() for _ in range(copies)])
    activation = _ACTIVATIONS[layer.activation]

    def run() -> torch.Tensor:
        if layer.kernel:
            stride, padding = layer.stride, layer.kernel // 2
            return activation(torch.nn.functional.conv2d(x, next(weights), bias, stride=stride, padding=padding))
        return activation(torch.nn.functional.linear(x, next(weights), bias))

    return run


def _our_layer(layer: Layer, sparsity: float, target: CompileTarget, cold: bool) -> tuple[Callable[[], object], str]:
    backend = get_backend("llvm")
    fused, tiled = layer.fused(sparsity), layer.tiled if sparsity else NOT_TILED
    kernel = fused.kernel(backend, target, sparse=sparsity > 0, tiled=tiled)
    size = sum(array.nbytes for array in kernel.constants)
    copies = 1 + (_COLD_BYTES // size if cold else 0)
    x_shape = fused.x_shape
    if tiled.x and fused.conv is None:
        x_shape = tiled_shape(token_tile(x_shape, target), x_shape[-1])
    elif tiled.x and fused.conv is not None:
        found = backend.plane_tile(fused.weight.shape, fused.conv, target, None)
        assert found is not None
        x_shape = tiled_planes_shape(found.tile, *x_shape[:2])
    calls = compiled_calls({"ours": kernel}, x_shape, False, target, copies=copies)
    return calls["ours"], kernel.note


def main() -> None:
    """Parse the command line, time every layer of the suite and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="resnet50")
    parser.add_argument("--sparsity", type=float, default=0.0, help="share of zero weights; 0 times the dense kernels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", default="", help="time only the layers whose description contains this text")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out")
    parser.add_argument("--cold", action="store_true", help="weights come from memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    target = parse_target("llvm -mcpu=native")
    peak_loop, peak_work = fma_loop(target, options.threads)
    totals = {"ours": 0.0, "torch": 0.0}
    work, good, ideal, fastest = 0.0, 0.0, 0.0, 0.0
    print(f"{'':30}{'M':>6}{'K':>6}{'N':>6}   ms        torch            GF/s   of peak")
    for layer in [layer for layer in SUITES[options.suite]() if options.only in str(layer)]:
        ours, note = _our_layer(layer, options.sparsity, target, options.cold)
        calls = {"ours": ours, "peak": peak_loop}
        if not options.no_torch:
            calls["torch"] = _torch_layer(layer, options.cold)
        with torch.inference_mode():
            times = interleaved(calls, repeats=options.rounds, limit=3.0)
        m, k, n = layer.matrix
        operations = 2.0 * m * k * n * (1 - options.sparsity)
        peak = peak_work / times["peak"].minimum
        share = operations / times["ours"].minimum / peak
        ours_ms = times["ours"].median * 1e3
        for name in totals.keys() & times.keys():
            totals[name] += layer.count * times[name].median * 1e3
        work += layer.count * operations
        good += layer.count * operations * (share >= _GOAL)
        ideal += layer.count * operations / peak
        fastest += layer.count * times["ours"].minimum
        against = ""
        if "torch" in times:
            torch_ms = times["torch"].median * 1e3
            against = f"{torch_ms:8.3f} {torch_ms / ours_ms:5.2f}x"
        print(
            f"{layer.count:2} x {layer!s:25}{m:6}{k:6}{n:6}{ours_ms:9.3f} {against:15}"
            f"{operations / times['ours'].minimum * 1e-9:8.1f}  {share:5.0%}   {note}",
            flush=True,
        )
    print(f"peak {peak * 1e-9:.0f} GF/s; all layers {ideal / fastest:.0%} of it; "
          f"{good / work:.0%} of the work at {_GOAL:.0%} of peak or more")  # fmt: skip
    against = f", torch {totals['torch']:.2f} ms, {totals['torch'] / totals['ours']:.2f}x" if totals["torch"] else ""
    print(f"network: kernels {totals['ours']:.2f} ms (fastest {fastest * 1e3:.2f}){against}")


if __name__ == "__main__":
    main()
