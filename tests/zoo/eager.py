"""``python -m tests.zoo.eager [name ...]``: apply a plan to zoo models in place; say which lines hard-code sizes."""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphprune.analysis import analyze
from graphprune.eager.apply import Inputs, apply_to_traced
from graphprune.errors import GraphPruneError
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.units.kinds import KINDS
from tests.zoo.check import relative_error
from tests.zoo.models import make, zoo_names


def state_of(model: nn.Module) -> list[tuple[str, Any]]:
    """Return everything that apply_ might change: tensors by identity and version, and plain attributes."""
    tensors = [
        (name, (id(value), value._version, value.shape))
        for module_path, module in model.named_modules()
        for name, value in (
            (f"{module_path}.{k}", v) for k, v in (*module._parameters.items(), *module._buffers.items())
        )
        if value is not None
    ]
    attributes = [
        (f"{path}.{name}", value if isinstance(value, (int, float, str, tuple)) else id(value))
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    ]
    return tensors + attributes


def check_eager(name: str, ratio: float, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Apply a plan to one model and compare it with the shrunk graph; never raises."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            facts = _apply_and_compare(name, ratio, kinds)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        facts = {"status": "crashed", "reason": f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"}
    gc.collect()
    return {"name": name, **facts, "seconds": round(time.perf_counter() - start, 1)}


def _apply_and_compare(name: str, ratio: float, kinds: tuple[str, ...]) -> dict[str, Any]:
    example = make(name)
    inputs = Inputs(example.args, example.kwargs)
    gm = inputs.trace(example.model)
    before = state_of(example.model)
    analysis = analyze(gm)
    plan = PruneChannels(ratio=ratio, kinds=kinds).plan(gm, analysis=analysis)
    try:
        apply_to_traced(plan, example.model, gm, inputs)
    except GraphPruneError as error:
        untouched = state_of(example.model) == before
        reason = {"reason": error.message, "source": error.source}
        return {"status": "hard-coded" if untouched else "not restored", **reason}
    with torch.no_grad():
        expected = shrink(gm, plan, analysis=analysis)(*example.args, **example.kwargs)
        error = relative_error(example.model(*example.args, **example.kwargs), expected)
    return {"status": "applied" if error <= 1e-5 else "wrong", "reason": "", "source": None, "error": error}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.eager", description=__doc__)
    parser.add_argument("names", nargs="*", help="names or patterns such as 'hf/*'; default: all")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--kinds", default=",".join(PruneChannels().kinds), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, help="also append each outcome to this file, one line each")
    arguments = parser.parse_args()
    names = [n for n in zoo_names() if not arguments.names or any(fnmatch.fnmatch(n, p) for p in arguments.names)]
    counts: Counter[str] = Counter()
    for name in names:
        outcome = check_eager(name, arguments.ratio, tuple(arguments.kinds.split(",")))
        counts[outcome["status"]] += 1
        source = f" at {outcome['source']}" if outcome.get("source") else ""
        print(
            f"{name:45} {outcome['status']:12} {outcome['seconds']:6} s  {outcome['reason'][:150]}{source}", flush=True
        )
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(outcome) + "\n")
    print(", ".join(f"{count} {status}" for status, count in counts.items()), f"of {len(names)}")
    return int(any(counts[status] for status in ("wrong", "crashed", "not restored")))


if __name__ == "__main__":
    sys.exit(main())
