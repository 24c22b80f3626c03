"""Compares our dense kernels with what TVM's own tuner, MetaSchedule, finds for the same layers in a bounded search.

    pip install psutil cloudpickle xgboost
    python tests/benchmarks/bench_metaschedule.py --trials 64 [--only 14]

MetaSchedule gets the product as plain loops with bias and ReLU and searches tilings by running ``--trials`` of
them for each layer; ours are timed as the cost model makes them, and tuned (each candidate timed once). All run on
one thread, in turns. Building a trial takes a worker that imports TVM for many seconds: hence the long time limit,
without which every trial fails without a word.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tvm
from layer_suites import Layer
from tvm import te, tirx, topi

from graphprune.backend import get_backend
from graphprune.backend.target import CompileTarget, parse_target
from graphprune.backend.tuning.candidates import candidates
from graphprune.backend.tuning.timing import compiled_calls
from graphprune.errors import BackendError
from graphprune.measure import interleaved
from graphprune.runtime import set_num_threads

LAYERS = (
    Layer(1, 256, 64, 56, 1),
    Layer(1, 128, 128, 28, 3),
    Layer(1, 1024, 256, 14, 1),
    Layer(1, 1000, 2048, 16, activation="none"),
)
_WORKER_SECONDS = 240


def plain_loops(layer: Layer) -> tirx.PrimFunc:
    """Return the layer as unscheduled TensorIR: product, bias, activation."""
    fused = layer.fused(0.0)
    x, weight = te.placeholder(fused.x_shape, name="x"), te.placeholder(fused.weight.shape, name="weight")
    bias = te.placeholder((layer.out_channels,), name="bias")
    if layer.kernel:
        product = topi.nn.conv2d_nchw(x, weight, layer.stride, layer.kernel // 2, 1)
        result = te.compute(product.shape, lambda n, c, h, w: product[n, c, h, w] + bias[c], name="biased")
    else:
        product = topi.nn.dense(x, weight)
        result = te.compute(product.shape, lambda n, c: product[n, c] + bias[c], name="biased")
    if layer.activation == "relu":
        result = topi.nn.relu(result)
    return te.create_prim_func([x, weight, bias, result])


def metaschedule(layer: Layer, target: CompileTarget, trials: int) -> Callable[[], object] | None:
    """Return the best function found, on random inputs; None if no trial worked."""
    from tvm.s_tir import meta_schedule as ms

    module = tvm.IRModule({"main": plain_loops(layer).with_attr("global_symbol", "main")})
    tuned_for = tvm.target.Target({**target.spec, "num-cores": 1})
    with tempfile.TemporaryDirectory() as folder:
        database = ms.tir_integration.tune_tir(
            module,
            tuned_for,
            folder,
            max_trials_global=trials,
            num_trials_per_iter=min(trials, 16),
            builder=ms.builder.LocalBuilder(max_workers=1, timeout_sec=_WORKER_SECONDS),
            num_tuning_cores=1,
            seed=0,
        )
        schedule = ms.tir_integration.compile_tir(database, module, tuned_for)
    if schedule is None:
        return None
    function = tvm.compile(schedule.mod, target=tuned_for)["main"]
    fused = layer.fused(0.0)
    x = np.random.default_rng(1).standard_normal(fused.x_shape, dtype=np.float32)
    m, _, n = layer.matrix
    shape = (1, m, *[-(-layer.size // layer.stride)] * 2) if layer.kernel else (n, m)
    arguments = [tvm.runtime.tensor(array) for array in (x, fused.weight, fused.bias)]
    arguments.append(tvm.runtime.empty(shape, "float32"))
    return lambda: function(*arguments)


def ours(layer: Layer, target: CompileTarget) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return our kernel as the cost model makes it, and the fastest of all candidates."""
    fused, backend = layer.fused(0.0), get_backend("llvm")
    kernels = {}
    for candidate in candidates(fused, sparse=False, fixed_format=True):
        try:
            kernels[str(candidate)] = fused.kernel(backend, target, sparse=False, choice=candidate.choice)
        except BackendError:  # no kernel of this form for this layer
            continue
    calls = compiled_calls(kernels, fused.x_shape, False, target)
    times = interleaved(calls, repeats=20, limit=5.0)
    best = min(times, key=lambda name: times[name].minimum)
    return next(iter(calls.values())), calls[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64, help="for each layer")
    parser.add_argument("--only", default="", help="only the layers whose description contains this text")
    options = parser.parse_args()
    set_num_threads(1)
    target = parse_target("llvm -mcpu=native")
    for layer in [layer for layer in LAYERS if options.only in str(layer)]:
        start = time.perf_counter()
        found = metaschedule(layer, target, options.trials)
        seconds = time.perf_counter() - start
        untuned, tuned = ours(layer, target)
        calls = {"untuned": untuned, "tuned": tuned, **({} if found is None else {"MetaSchedule": found})}
        times = {name: timing.median * 1e3 for name, timing in interleaved(calls, repeats=30, limit=10.0).items()}
        cells = ", ".join(f"{name} {value:.3f} ms" for name, value in times.items())
        print(f"{layer}: {cells}; {options.trials} trials of MetaSchedule took {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
