r"""What a second thread buys: each network with one and with two threads, in turns, beside eager PyTorch.

    python tests/benchmarks/bench_threads.py resnet50 mobilenet_v2 --prunings dense 90% [--batches 1] [--threads 1 2]

Other benchmarks measure one number of threads after the other, minutes apart; where cores are shared with other guests
of the same machine, that compares two moments more than two numbers of threads. Here they alternate every few runs.
Printed are medians in milliseconds and how many times faster the larger number is, of medians and of the fastest runs.
The first row is a loop of multiply-adds in registers: what the machine itself gives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

import torch
from fma_peak import fma_loop
from networks import add_settings, build, prune_network

import graphprune as gp
from graphprune.backend.target import parse_target
from graphprune.measure import PAUSE, Timing, interleaved
from graphprune.runtime import set_num_threads

_ENGINES = ("graphprune", "torch")


def main() -> int:
    """Measure what the command line asks for and print one row for each network and pruning."""
    options = _options()
    counts = tuple(options.threads)
    heads = "".join(f"{engine:37}" for engine in _ENGINES)
    print(f"{'network':16} {'pruning':7} batch  {heads}")
    _print("multiply-adds", "", "", [_cell(_measure({"": _fma_calls(counts)}, options), "", counts)])
    with torch.inference_mode():
        for name in options.networks:
            for batch in options.batches:
                for pruning in options.prunings:
                    timings = _measure(_network_calls(name, batch, pruning, counts), options)
                    _print(name, pruning, str(batch), [_cell(timings, engine, counts) for engine in _ENGINES])
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser)
    parser.add_argument("--threads", nargs=2, type=int, default=[1, 2], metavar=("FEW", "MANY"))
    parser.add_argument("--repeats", type=int, default=48, help="timed runs of each engine and number of threads")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of measuring for one row")
    return parser.parse_args()


Calls = dict[int, Callable[[], object]]


def _fma_calls(counts: tuple[int, ...]) -> Calls:
    """Return, for each number of threads, a call that does the same work in all."""
    target, whole = parse_target("llvm -mcpu=native"), max(counts)
    calls: Calls = {}
    for count in counts:
        loop, _ = fma_loop(target, count)
        calls[count] = _repeated(loop, whole * 100 // count)
    return calls


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def _network_calls(name: str, batch: int, pruning: str, counts: tuple[int, ...]) -> dict[str, Calls]:
    model, inputs = build(name, batch)
    graph, plain = prune_network(model, inputs, pruning)
    engines = {"graphprune": gp.compile(graph), "torch": plain or graph}
    return {engine: dict.fromkeys(counts, lambda run=run: run(*inputs)) for engine, run in engines.items()}


def _measure(engines: Mapping[str, Calls], options: argparse.Namespace) -> dict[str, Timing]:
    calls = {
        f"{engine} {count}": _with_threads(call, count)
        for engine, by_count in engines.items()
        for count, call in by_count.items()
    }
    return interleaved(calls, repeats=options.repeats, limit=options.limit, turn=4, pause=PAUSE)


def _with_threads(call: Callable[[], object], count: int) -> Callable[[], object]:
    """Return a call that changes the number of threads only where the last call used another one: that takes time."""

    def run() -> None:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
            set_num_threads(count)
        call()

    return run


def _cell(timings: Mapping[str, Timing], engine: str, counts: tuple[int, ...]) -> str:
    few, many = (timings[f"{engine} {count}"] for count in counts)
    medians = f"{few.median * 1e3:7.2f} -> {many.median * 1e3:7.2f} ms"
    return f"{medians}  {few.median / many.median:4.2f}x ({few.minimum / many.minimum:4.2f}x)"


def _print(name: str, pruning: str, batch: str, cells: list[str]) -> None:
    print(f"{name:16} {pruning:7} {batch:5}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
