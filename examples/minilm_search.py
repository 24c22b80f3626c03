"""Prunes all-MiniLM-L6-v2, a sentence encoder, and compares its search results and speed with the original.

    python examples/minilm_search.py [--quick] [--json FILE]

The task is to find the body of a docstring, given its summary, among hundreds from numpy, scipy and torch. Neurons of
the feed-forward layers go first, then single weights, chosen by the activations they meet (Wanda). After each step the
network learns to give the vectors of the original for docstrings that are not in the test. Time is for one text of 128
tokens, against eager PyTorch in the same run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from comparison import Variant, compare_speed, print_comparison
from distillation import distill, teach
from docstrings import Passage, passages, recall_and_mrr
from minilm import SentenceEncoder, load_minilm, tokenize
from rich.console import Console
from tokenizers import Tokenizer
from torch import fx, nn

import graphprune as gp
from graphprune.criteria import Wanda
from graphprune.passes import PruneChannels, PruneWeights

BATCH = 16
FEED_FORWARD = "*.intermediate.dense.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train and test on fewer docstrings")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    results = prune_and_compare(*load_minilm(), quick=arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def prune_and_compare(original: SentenceEncoder, tokenizer: Tokenizer, *, quick: bool) -> dict[str, dict[str, float]]:
    """Make the variants, print the comparison, and return scores and times by variant."""
    say = Console(stderr=True).print
    known = passages()
    test, train = known[: 64 if quick else 512], known[512 : 512 + BATCH * (4 if quick else 100)]
    texts = [text for pair in train for text in (pair.body, pair.summary)]
    batches = [tokenize(tokenizer, texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    say(f"the original encodes {len(texts)} texts")
    targets = teach(original, batches)

    open_batch = {name: {0: torch.export.Dim("batch", min=1, max=1024)} for name in ("input_ids", "attention_mask")}
    example = tuple(part[:2] for part in batches[0])
    say("removing 30 % of the feed-forward neurons")
    neurons = PruneChannels(ratio=0.3, include=(FEED_FORWARD,))
    small = gp.prune(original, neurons, example_inputs=example, dynamic_shapes=open_batch)
    distill(small, batches, targets, cosine_distance, learning_rate=1e-4)
    say("zeroing 80 % of the weights of the original")
    calibration = [(batch,) for batch in batches[:4]]
    weights = PruneWeights(sparsity=0.8, scope="row", criterion=Wanda(calibration))
    sparse = gp.prune(original, weights, example_inputs=example, dynamic_shapes=open_batch)
    distill(sparse, batches, targets, cosine_distance, learning_rate=4e-4, rounds=1 if quick else 2)
    say("zeroing 70 % of the weights of the smaller network")
    weights = PruneWeights(sparsity=0.7, scope="row", criterion=Wanda(calibration))
    both = gp.prune(small, weights)
    distill(both, batches, targets, cosine_distance, learning_rate=4e-4, rounds=1 if quick else 2)

    variants = [
        Variant("original", original),
        Variant("70 % of the neurons", small),
        Variant("80 % of weights zero", sparse),
        Variant("70 % of the neurons, then 70 % zero", both),
    ]
    scores = {variant.name: search_scores(variant.model, tokenizer, test) for variant in variants}
    for variant in variants:
        variant.score = {name: f"{value:.1%}" for name, value in scores[variant.name].items()}
    say("compiling and timing")
    error = compare_speed(variants, tuple(part[:1] for part in batches[0]), seconds=6 if quick else 40)
    print_comparison(f"MiniLM, {len(test)} docstrings, one text at a time, {torch.get_num_threads()} threads", variants)
    print(f"compiled and torch outputs differ by at most {error:.1e} of the largest")
    return {variant.name: scores[variant.name] | variant.milliseconds for variant in variants}


def cosine_distance(vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean of one minus the cosine between unit vectors."""
    return (1 - (vectors * targets).sum(1)).mean()


def search_scores(model: nn.Module | fx.GraphModule, tokenizer: Tokenizer, test: list[Passage]) -> dict[str, float]:
    """Return how well summaries find their bodies."""

    def encode(texts: list[str]) -> torch.Tensor:
        batches = [tokenize(tokenizer, texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        with torch.inference_mode():
            return torch.cat([model(*batch) for batch in batches])

    recall, mean_rank = recall_and_mrr(encode([p.summary for p in test]), encode([p.body for p in test]))
    return {"recall at 1": recall, "mean reciprocal rank": mean_rank}


if __name__ == "__main__":
    main()
