"""The most multiply-adds a second that this machine does, measured by code that does nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import arguments, building, load, registers, splat, store
from graphprune.backend.target import CompileTarget

_STEPS = 20_000
_SUMS = 12  # independent sums: more than two units times a latency of four cycles need


def fma_loop(target: CompileTarget, threads: int) -> tuple[Callable[[], object], float]:
    """Return a function that multiplies and adds in registers on every thread, and its floating-point operations."""
    lanes = target.lanes
    tasks = threads
    with building("fma_peak") as emitter:
        buffers = arguments((1, 2), (tasks, lanes), [], residual=False)
        with T.parallel(tasks) as task:
            sums = registers(_SUMS, lanes)
            factor = T.Bind(splat(buffers.x[0], lanes))
            addend = T.Bind(splat(buffers.x[1], lanes))
            for i in range(_SUMS):
                store(sums, i * lanes, splat(float(i), lanes), lanes)
            with T.serial(_STEPS):
                for i in range(_SUMS):
                    store(sums, i * lanes, load(sums, i * lanes, lanes) * factor + addend, lanes)
            total = load(sums, 0, lanes)
            for i in range(1, _SUMS):
                total = total + load(sums, i * lanes, lanes)
            store(buffers.out, task * lanes, total, lanes)
    function = emitter.function.with_attr("global_symbol", "fma_peak").with_attr("tirx.is_scheduled", True)
    module = tvm.compile(tvm.IRModule({"fma_peak": function}), target=target.tvm)
    x = tvm.runtime.tensor(np.array([[0.5, 1.0]], np.float32))
    out = tvm.runtime.empty((tasks, lanes), "float32")
    run = module["fma_peak"]
    return lambda: run(x, out), 2.0 * tasks * _STEPS * _SUMS * lanes
