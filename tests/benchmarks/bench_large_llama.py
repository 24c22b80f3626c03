"""Traces, plans and shrinks a Llama of 32 layers, 4096 wide, on the meta device: no weights, only sizes.

    python tests/benchmarks/bench_large_llama.py [--layers 32] [--width 4096]

Times are processor seconds; memory is the peak of the whole process, of which the first line has
what torch and transformers take.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from graphprune.analysis import analyze
from graphprune.criteria import Even
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from graphprune.units.kinds import CHANNEL, EMBEDDING, HEAD, KV_GROUP, NEURON

T = TypeVar("T")
HEAD_WIDTH = 128
TOKENS = 128
KINDS = (CHANNEL, NEURON, EMBEDDING, HEAD, KV_GROUP)


def build(layers: int, width: int) -> nn.Module:
    """Return a Llama with grouped queries (four heads share a key) on the meta device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=max(1, width // HEAD_WIDTH // 4),
        vocab_size=32000,
        use_cache=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def stage(name: str, work: Callable[[], T]) -> T:
    """Run ``work`` and print its processor seconds and the peak memory of the process so far."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:8} {seconds:7.1f} s {peak:6.2f} GiB", flush=True)
    return result


def main() -> None:
    """Print a line for each stage, then what the plan would save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    model = stage("build", lambda: build(arguments.layers, arguments.width))
    inputs: dict[str, Any] = {"input_ids": torch.zeros(1, TOKENS, dtype=torch.long, device="meta")}
    gm = stage("trace", lambda: trace(model, (), inputs))
    analysis = stage("infer", lambda: analyze(gm))
    plan = stage("plan", lambda: PruneChannels(ratio=0.5, criterion=Even(), kinds=KINDS).plan(gm, analysis=analysis))
    small = stage("shrink", lambda: shrink(gm, plan, analysis=analysis))
    before, after = (sum(p.numel() for p in graph.parameters()) for graph in (gm, small))
    assert (before, after) == tuple(plan.cost["parameters"])
    counts = Counter(choice.kind for choice in plan.choices)
    pruned = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"{len(gm.graph.nodes)} nodes, {len(analysis.dimensions)} dimensions; pruned: {pruned}")
    print(f"parameters {before / 1e9:.2f} -> {after / 1e9:.2f} billion")


if __name__ == "__main__":
    main()
