r"""Whole networks against the engines that people use today, all in one run.

Every engine gets the same weights (zeros included; for ``half`` the same smaller network), inputs and thread count.
Outputs are compared with torch first. Engines take turns: one turn is a pause, in which the threads of the one before
fall asleep, a run that is not timed, and a few that are. Times are medians in milliseconds. ONNX peers get the
export of the plain module with the pruned weights, what they were made for; only networks with removed
channels are exported from the graph.

    python tests/benchmarks/bench_peers.py resnet50 mobilenet_v2 --prunings dense 90% half --batches 1 16 \
        [--threads 1 2] [--peers torch onnxruntime openvino] [--deepsparse ds/bin/python] [--results rows.jsonl]

With ``--results`` every finished row is appended to a file, and settings that are in it already are not measured again:
an interrupted run goes on where it was. ``plot_peers.py rows.jsonl`` makes a table and plots of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import add_settings, build, prune_network
from peers import PEERS, Engine, Job, Unavailable, job_folder, load_peer

import graphprune as gp
from graphprune.measure import PAUSE, Timing, interleaved
from graphprune.runtime import set_num_threads

TOLERANCE = 1e-3  # largest difference to torch, relative to the largest output
OURS, TUNED = "graphprune", "graphprune tuned"


def main() -> int:
    """Measure what the command line asks for and print one table row for each setting."""
    options = _options()
    done = _finished(options.results)
    columns = [OURS, *([TUNED] if options.tune else []), *options.peers]
    print(f"{'network':16} {'pruning':7} batch threads  " + "".join(f"{name:>17}" for name in columns))
    with torch.inference_mode():
        for name in options.networks:
            for batch in options.batches:
                for pruning in options.prunings:
                    threads = [count for count in options.threads if (name, pruning, batch, count) not in done]
                    if threads:
                        _measure(name, pruning, batch, threads, columns, options)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--deepsparse", help="python interpreter of an environment with DeepSparse")
    parser.add_argument("--tune", action="store_true", help="also compile with tune=True")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs of each engine")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds of measuring for one setting")
    parser.add_argument("--results", type=Path, help="append rows to this file, leave out what it holds already")
    options = parser.parse_args()
    if options.deepsparse and "deepsparse" not in options.peers:
        options.peers.append("deepsparse")
    return options


def _finished(path: Path | None) -> set[tuple[str, str, int, int]]:
    if path is None or not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["network"], row["pruning"], row["batch"], row["threads"]) for row in rows}


def _measure(
    name: str, pruning: str, batch: int, threads: list[int], columns: list[str], options: argparse.Namespace
) -> None:
    model, inputs = build(name, batch)
    graph, plain = prune_network(model, inputs, pruning)
    start = time.perf_counter()
    compiled = {OURS: gp.compile(graph)}
    compile_seconds = time.perf_counter() - start
    if options.tune:
        compiled[TUNED] = gp.compile(graph, tune=True)
    expected = _arrays((plain or graph)(*inputs))
    with job_folder() as folder:
        for count in threads:
            torch.set_num_threads(count)
            set_num_threads(count)
            engines = {engine: _ours(own, inputs) for engine, own in compiled.items()}
            refused = {}
            for peer in options.peers:
                try:
                    engines[peer] = load_peer(peer, Job(graph, plain, inputs, count, folder, options.deepsparse))
                except Unavailable as reason:
                    refused[peer] = str(reason)
            for engine_name, engine in engines.items():
                _check(f"{name} {pruning} on {engine_name}", engine.outputs, expected)
            runs = {engine: peer.run for engine, peer in engines.items()}
            repeats, limit = options.repeats, options.limit
            timings = interleaved(runs, repeats=repeats, warmup=0, limit=limit, turn=4, pause=PAUSE, self_timed=True)
            for engine in engines.values():
                engine.close()
            row = _row(name, pruning, batch, count, compile_seconds, timings, refused)
            _print(row, columns)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _ours(compiled: gp.CompiledModel, inputs: tuple[torch.Tensor, ...]) -> Engine:
    def run() -> float:
        start = time.perf_counter()
        compiled(*inputs)
        return time.perf_counter() - start

    return Engine(run, _arrays(compiled(*inputs)))


def _arrays(result: Any) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in ([result] if isinstance(result, torch.Tensor) else result)]


def _check(what: str, outputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for output, reference in zip(outputs, expected, strict=True):
        error = np.abs(output - reference).max() / np.abs(reference).max()
        if not error < TOLERANCE:
            raise SystemExit(f"{what}: outputs differ by {error:.1e} relative, more than {TOLERANCE}")


def _row(
    name: str,
    pruning: str,
    batch: int,
    threads: int,
    compile_seconds: float,
    timings: dict[str, Timing],
    refused: dict[str, str],
) -> dict[str, Any]:
    medians = {engine: timing.median * 1e3 for engine, timing in timings.items()}
    return {
        "network": name,
        "pruning": pruning,
        "batch": batch,
        "threads": threads,
        "milliseconds": medians,
        "minimum": {engine: timing.minimum * 1e3 for engine, timing in timings.items()},
        "speedup": {engine: value / medians[OURS] for engine, value in medians.items() if engine != OURS},
        "compile_seconds": compile_seconds,
        "refused": refused,
    }


def _print(row: dict[str, Any], columns: list[str]) -> None:
    cells = []
    for engine in columns:
        milliseconds = row["milliseconds"].get(engine)
        ratio = f" {row['speedup'][engine]:.2f}x" if engine in row["speedup"] else ""
        cells.append(f"{'-' if milliseconds is None else f'{milliseconds:.2f}{ratio}':>17}")
    print(f"{row['network']:16} {row['pruning']:7} {row['batch']:5} {row['threads']:7}  {''.join(cells)}", flush=True)
    for peer, reason in row["refused"].items():
        print(f"    {peer}: {reason}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
