"""Whole models, compiled against torch eager in inference mode, in one process, interleaved.

Cases: ResNet-50 at batch 1 dense, at 90 % unstructured sparsity (against torch on the dense model), and with half its
channels removed (against torch on the very same smaller graph); a BERT of MiniLM's size at 128 tokens and 80 %
(against torch on the dense model). Each is first checked against torch on the pruned graph.

    python tests/benchmarks/bench_models.py [case ...] [--threads 1 2] [--repeats 30] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from graphprune.api import prune
from graphprune.compiler import compile
from graphprune.measure import PAUSE, interleaved
from graphprune.pass_base import Pass
from graphprune.passes import PruneChannels, PruneWeights
from graphprune.runtime import set_num_threads

TOLERANCE = 1e-4  # largest difference allowed, relative to the largest output


@dataclass(frozen=True)
class Case:
    """A pruned graph to compile, what torch runs against it, and the ratio that is the goal."""

    graph: fx.GraphModule
    baseline: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    goal: float


def _resnet50(prune_pass: Pass | None, goal: float, *, against_itself: bool = False) -> Case:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    model, x = _settle(resnet50(weights=None)), torch.randn(1, 3, 224, 224)
    graph = prune(model, [] if prune_pass is None else prune_pass, (x,))
    return Case(graph, graph if against_itself else model, (x,), {}, goal)


def _minilm(prune_pass: Pass, goal: float) -> Case:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = BertModel(config).eval()
    inputs = {
        "input_ids": torch.randint(0, config.vocab_size, (1, 128)),
        "attention_mask": torch.ones(1, 128, dtype=torch.long),
    }
    return Case(prune(model, prune_pass, (), inputs), model, (), inputs, goal)


CASES: dict[str, Callable[[], Case]] = {
    "resnet50-dense": lambda: _resnet50(None, goal=1.0),
    "resnet50-90": lambda: _resnet50(PruneWeights(sparsity=0.9, scope="layer"), goal=3.0),
    "resnet50-half": lambda: _resnet50(PruneChannels(ratio=0.5), goal=1.0, against_itself=True),
    "minilm-80": lambda: _minilm(PruneWeights(sparsity=0.8, scope="layer"), goal=1.5),
}


def _settle(model: nn.Module) -> nn.Module:
    """Give batch norms statistics that keep activations near one, so that errors show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return model.eval()


def _main_output(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result[0]


def _run(name: str, threads: list[int], repeats: int) -> list[dict[str, Any]]:
    case = CASES[name]()
    compiled = compile(case.graph)
    expected = _main_output(case.graph(*case.args, **case.kwargs))
    error = float((_main_output(compiled(*case.args, **case.kwargs)) - expected).abs().max() / expected.abs().max())
    if error > TOLERANCE:
        raise SystemExit(f"{name}: outputs differ by {error:.1e} relative, more than {TOLERANCE}")
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        set_num_threads(count)
        timings = interleaved(
            {
                "graphprune": lambda: compiled(*case.args, **case.kwargs),
                "torch": lambda: case.baseline(*case.args, **case.kwargs),
            },
            repeats=repeats,
            turn=4,
            pause=PAUSE,
        )
        ours, torchs = timings["graphprune"], timings["torch"]
        rows.append(
            {
                "case": name,
                "threads": count,
                "error": error,
                "graphprune_ms": ours.median * 1e3,
                "torch_ms": torchs.median * 1e3,
                "ratio": torchs.median / ours.median,
                "ratio_of_minima": torchs.minimum / ours.minimum,
                "goal": case.goal,
            }
        )
    return rows


def main() -> None:
    """Run the cases named on the command line, or all of them, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for name in options.cases or CASES:
            for row in _run(name, options.threads, options.repeats):
                rows.append(row)
                print(
                    "{case:15} {threads} threads: graphprune {graphprune_ms:7.2f} ms, torch {torch_ms:7.2f} ms, "
                    "{ratio:5.2f}x (of minima {ratio_of_minima:.2f}x, goal {goal}x), error {error:.0e}".format(**row),
                    flush=True,
                )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"command": sys.argv, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
