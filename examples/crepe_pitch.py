"""Prunes CREPE, a pitch tracker of 22 million parameters, and compares accuracy and speed with the original.

    python examples/crepe_pitch.py [--quick] [--json FILE]

Channels go first and the network becomes physically smaller; then single weights become zero and the compiler picks
sparse kernels. After each step the network learns, from synthesised tones, to answer like the original. Accuracy is the
share of unseen tones whose pitch is heard within half a semitone; time is for one frame, against eager PyTorch in the
same run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from comparison import Variant, compare_speed, print_comparison
from crepe import Crepe, load_crepe, raw_pitch_accuracy
from distillation import distill, teach
from rich.console import Console
from tones import harmonic_tones
from torch import fx, nn

import graphprune as gp
from graphprune.passes import PruneChannels, PruneWeights

BATCH = 32
TRAINING_SEED, TEST_SEED = 1, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train and test on fewer tones: under two minutes")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    results = prune_and_compare(load_crepe(), quick=arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def prune_and_compare(original: Crepe, *, quick: bool) -> dict[str, dict[str, float]]:
    """Make the variants, print the comparison, and return accuracy and times by variant."""
    say = Console(stderr=True).print
    frames, cents = harmonic_tones(128 if quick else 1024, TEST_SEED)
    batches = [(batch,) for batch in harmonic_tones(BATCH * (10 if quick else 100), TRAINING_SEED)[0].split(BATCH)]
    say(f"the original labels {len(batches) * BATCH} tones")
    targets = [torch.sigmoid(logits) for logits in teach(original, batches)]

    open_batch = {"frames": {0: torch.export.Dim("batch", min=1, max=4096)}}
    example = (frames[:2],)
    say("removing half of the channels")
    small = gp.prune(original, PruneChannels(ratio=0.5), example_inputs=example, dynamic_shapes=open_batch)
    distill(small, batches, targets, F.binary_cross_entropy_with_logits, learning_rate=2e-3, rounds=2)
    say("zeroing 80 % of the weights that are left")
    sparse = gp.prune(small, PruneWeights(sparsity=0.8))
    distill(sparse, batches, targets, F.binary_cross_entropy_with_logits, learning_rate=1e-3)
    say("zeroing 80 % of the weights of the original")
    thinned = gp.prune(original, PruneWeights(sparsity=0.8), example_inputs=example, dynamic_shapes=open_batch)

    variants = [
        Variant("original", original),
        Variant("80 % of weights zero, no training", thinned),
        Variant("half of the channels", small),
        Variant("half of the channels, then 80 % zero", sparse),
    ]
    heard = {variant.name: accuracy(variant.model, frames, cents) for variant in variants}
    for variant in variants:
        variant.score["raw pitch accuracy"] = f"{heard[variant.name]:.1%}"
    say("compiling and timing")
    error = compare_speed(variants, (frames[:1],), seconds=4 if quick else 40)
    print_comparison(f"CREPE, {len(frames)} tones, one frame at a time, {torch.get_num_threads()} threads", variants)
    print(f"compiled and torch outputs differ by at most {error:.1e} of the largest")
    return {variant.name: {"accuracy": heard[variant.name], **variant.milliseconds} for variant in variants}


def accuracy(model: nn.Module | fx.GraphModule, frames: torch.Tensor, cents: torch.Tensor) -> float:
    """Return the share of frames heard within 50 cents."""
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in frames.split(BATCH)])
    return raw_pitch_accuracy(logits, cents)


if __name__ == "__main__":
    main()
