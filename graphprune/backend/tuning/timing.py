"""Compiles the candidates of a layer together and times them in turn on random inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tvm

from graphprune.backend.cpu_passes import cpu_passes
from graphprune.backend.kernels.contract import Kernel
from graphprune.backend.target import CompileTarget
from graphprune.measure import interleaved

_FIRST_REPEATS = 4
_CLOSE = 1.25  # candidates within this of the fastest after the first rounds are measured more closely
_REPEATS = 40
_LIMIT = 0.6  # seconds for the closer look at one layer, warm-up not counted


def compiled_calls(
    kernels: Mapping[str, Kernel],
    x_shape: tuple[int, ...],
    residual: bool,
    target: CompileTarget,
    *,
    copies: int = 1,
) -> dict[str, Callable[[], object]]:
    """Return, for each kernel, a function without arguments that runs it on random inputs.

    Its calls rotate through ``copies`` copies of the packed weights; enough of them keep weights out of the caches.
    """
    functions = {
        f"candidate_{i}": kernel.prim_func.with_attrs({"global_symbol": f"candidate_{i}", "tirx.is_scheduled": True})
        for i, kernel in enumerate(kernels.values())
    }
    if target.kind == "llvm":
        with cpu_passes(kernels_only=True):
            module = tvm.compile(tvm.IRModule(functions), target=target.tvm)
    else:
        module = tvm.compile(tvm.IRModule(functions), target=target.tvm)
    generator = np.random.default_rng(0)
    x = _tensor(generator.standard_normal(x_shape, np.float32))
    calls: dict[str, Callable[[], object]] = {}
    added: list[tvm.runtime.Tensor] = []
    for i, (name, kernel) in enumerate(kernels.items()):
        if residual and not added:
            added = [_tensor(generator.standard_normal(kernel.output_shape, np.float32))]
        out = tvm.runtime.empty(kernel.output_shape, kernel.output_dtype)
        arguments = [(x, *added, *map(_tensor, kernel.constants), out) for _ in range(copies)]
        calls[name] = _call(module[f"candidate_{i}"], itertools.cycle(arguments))
    return calls


def _call(function: Callable[..., object], arguments: Iterator[tuple[tvm.runtime.Tensor, ...]]) -> Callable[[], object]:
    return lambda: function(*next(arguments))


def _tensor(array: np.ndarray) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(np.ascontiguousarray(array))


def fastest_times(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least time of each call in seconds, measured in turn; the first one, the default, always closely.

    Those that are clearly slower than the best after a few rounds keep their time of those rounds.
    """
    first = interleaved(calls, repeats=_FIRST_REPEATS, warmup=1, limit=_LIMIT)
    times = {name: timing.minimum for name, timing in first.items()}
    bound = _CLOSE * min(times.values())
    close = {name: call for i, (name, call) in enumerate(calls.items()) if i == 0 or times[name] <= bound}
    if len(close) > 1:
        for name, timing in interleaved(close, repeats=_REPEATS, warmup=0, limit=_LIMIT).items():
            times[name] = min(times[name], timing.minimum)
    return times
