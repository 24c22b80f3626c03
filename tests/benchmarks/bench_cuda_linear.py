"""Times the sparse CUDA kernel against cuBLAS on the linear layers of language models; needs a CUDA device.

    python tests/benchmarks/bench_cuda_linear.py --tokens 1 --dtype float16 --warps 4 8 16

One call takes microseconds, so calls are captured in a CUDA graph, and so many copies of the weight take turns that
none is still in the L2 cache when its turn comes again. Dense and sparse alternate, ``--rounds`` times; a time is the
median over the rounds, in microseconds a call. Each sparse result is compared with the dense one before timing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import tvm
import tvm_ffi

from graphprune.backend.cuda.device import cuda_device
from graphprune.backend.cuda.embedding import collecting_device_code
from graphprune.backend.kernels import Epilogue, cuda_sparse_linear
from graphprune.backend.target import parse_target
from graphprune.errors import BackendError

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CALLS = 64
"""Calls captured in one graph."""


def main() -> None:
    """Print one table for each number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--warps", type=int, nargs="+", default=[cuda_sparse_linear.WARPS], help="fastest is shown")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    try:
        device = cuda_device()
    except BackendError as error:
        parser.exit(1, f"{error}\n")
    arch = "sm_" + device.compute_version.replace(".", "")
    print(f"{torch.cuda.get_device_name()}, {options.dtype}, microseconds a call (speed-up over cuBLAS)")
    for tokens in options.tokens:
        print(f"\n{tokens} token(s)")
        print("| layer | cuBLAS |" + "".join(f" {sparsity:.0%} |" for sparsity in SPARSITIES))
        print("|---|---|" + "---|" * len(SPARSITIES))
        for rows, columns in SHAPES:
            print(_row(rows, columns, tokens, options, arch), flush=True)


def _row(rows: int, columns: int, tokens: int, options: argparse.Namespace, arch: str) -> str:
    dtype = getattr(torch, options.dtype)
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(rows, columns, generator=generator).to(dtype)
    x = torch.randn(tokens, columns, generator=generator).to(dtype).cuda()
    dense_times, cells = [], []
    for sparsity in SPARSITIES:
        keep = torch.rand(rows, columns, generator=generator) >= sparsity
        weight = dense * keep
        best = None
        for warps in options.warps:
            dense_time, sparse_time = _compare(weight, x, warps, options.rounds, arch)
            dense_times.append(dense_time)
            best = sparse_time if best is None else min(best, sparse_time)
        cells.append((best, dense_times[-1]))
    reference = statistics.median(dense_times)
    return f"| {rows}x{columns} | {reference:.1f} |" + "".join(f" {s:.2f} ({d / s:.2f}x) |" for s, d in cells)


def _compare(weight: torch.Tensor, x: torch.Tensor, warps: int, rounds: int, arch: str) -> tuple[float, float]:
    """Return the times of cuBLAS and of our kernel."""
    sparse_calls = _sparse_calls(weight, x, warps, arch)
    dense_calls = _dense_calls(weight, x)
    expected, result = dense_calls[0](), sparse_calls[0]()
    torch.cuda.synchronize()
    tolerance = 2e-2 if weight.dtype == torch.float16 else 1e-3
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    graphs = [_capture(calls) for calls in (dense_calls, sparse_calls)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for graph, collected in zip(graphs, times, strict=True):
            collected.append(_time(graph))
    return statistics.median(times[0]), statistics.median(times[1])


def _copies(nbytes: int) -> int:
    """Return how many copies of a weight exceed the L2 cache four times."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, -(-4 * cache // nbytes))


def _dense_calls(weight: torch.Tensor, x: torch.Tensor) -> list[Callable[[], torch.Tensor]]:
    copies = [weight.cuda().clone() for _ in range(_copies(weight.nbytes))]
    out = torch.empty(x.shape[0], weight.shape[0], dtype=weight.dtype, device="cuda")

    def call(copy: torch.Tensor) -> torch.Tensor:
        return torch.mm(x, copy.t(), out=out) if x.shape[0] > 1 else F.linear(x, copy)

    return [lambda copy=copy: call(copy) for copy in copies]


def _sparse_calls(weight: torch.Tensor, x: torch.Tensor, warps: int, arch: str) -> list[Callable[[], torch.Tensor]]:
    previous, cuda_sparse_linear.WARPS = cuda_sparse_linear.WARPS, warps
    try:
        kernel = cuda_sparse_linear.cuda_sparse_linear(weight.numpy(), None, tuple(x.shape), Epilogue())
    finally:
        cuda_sparse_linear.WARPS = previous
    function = kernel.prim_func.with_attrs({"tirx.is_scheduled": True, "global_symbol": "run"})
    target = parse_target({"kind": "cuda", "arch": arch})
    with collecting_device_code(arch):
        run = tvm.compile(tvm.IRModule({"run": function}), target=target.tvm)["run"]
    nbytes = sum(constant.nbytes for constant in kernel.constants)
    copies = [[_to_device(constant) for constant in kernel.constants] for _ in range(_copies(nbytes))]
    out = torch.empty(kernel.output_shape, dtype=weight.dtype, device="cuda")
    source, sink = tvm.runtime.from_dlpack(x), tvm.runtime.from_dlpack(out)

    def call(constants: list[tvm.runtime.Tensor]) -> torch.Tensor:
        run(source, *constants, sink)
        return out

    return [lambda constants=constants: call(constants) for constants in copies]


def _to_device(array: np.ndarray) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(array, device=tvm.cuda(0))


def _capture(calls: list[Callable[[], torch.Tensor]]) -> torch.cuda.CUDAGraph:
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with tvm_ffi.use_torch_stream(torch.cuda.graph(graph)):
        for index in range(CALLS):
            calls[index % len(calls)]()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def _time(graph: torch.cuda.CUDAGraph, replays: int = 10) -> float:
    """Return microseconds a call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1000 / (replays * CALLS)


if __name__ == "__main__":
    main()
