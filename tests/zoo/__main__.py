"""``python -m tests.zoo [name ...]``: prune every model of the zoo and print a table of what became of each."""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.zoo.check import Outcome, check
from tests.zoo.models import zoo_names
from tests.zoo.timings import Timing, time_model, timings_table

T = TypeVar("T", Outcome, Timing)


def main(all_names: list[str], program: str) -> int:
    """Check those of ``all_names`` that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("names", nargs="*", help="names or patterns such as 'hf/*'; default: all")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of every dimension to remove (default 0.5)")
    parser.add_argument("--all-kinds", action="store_true", help="prune heads, head widths and co-factors too")
    parser.add_argument("--dynamic-batch", action="store_true", help="trace with an open batch size")
    parser.add_argument("--reach", action="store_true", help="say why parameters are out of reach")
    parser.add_argument("--timings", action="store_true", help="time the stages of pruning instead")
    parser.add_argument("--jobs", type=int, default=1, help="models to check at the same time (default 1)")
    parser.add_argument("--require", type=int, help="fail if fewer models than this are pruned (default: all)")
    parser.add_argument("--json", type=Path, help="also write each outcome to this file, a line each, as it comes")
    arguments = parser.parse_args()

    names = [n for n in all_names if not arguments.names or any(fnmatch.fnmatch(n, p) for p in arguments.names)]
    if not names:
        parser.error(f"no model matches {' '.join(arguments.names)}")
    if arguments.timings:
        _time_all(names)
        return 0
    options = {"all_kinds": arguments.all_kinds, "dynamic_batch": arguments.dynamic_batch}
    task = partial(check, ratio=arguments.ratio, **options)
    outcomes = list(_noted(_with_progress(_check_all(names, task, arguments.jobs), len(names)), arguments.json))
    outcomes.sort(key=lambda outcome: names.index(outcome.name))
    _print(outcomes, _title(arguments.ratio, **options))
    if arguments.reach:
        _print_unreached(outcomes)
    pruned = sum(outcome.status == "pruned" for outcome in outcomes)
    faulty = any(outcome.status in ("wrong", "crashed") for outcome in outcomes)
    required = len(names) if arguments.require is None else arguments.require
    return int(pruned < required or faulty)


def _time_all(names: list[str]) -> None:
    time_model("torchvision/squeezenet1_0")  # fills torch's caches
    timings = list(_with_progress((time_model(name) for name in names), len(names)))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(timings_table(timings))


def _check_all(names: list[str], task: Callable[[str], Outcome], jobs: int) -> Iterator[Outcome]:
    """Check models in worker processes that are replaced often, since traced models leave memory behind."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # `check` and `set_num_threads` are found by name in the workers, which functions of this file would not be.
    with context.Pool(jobs, torch.set_num_threads, (threads,), maxtasksperchild=12) as pool:
        yield from pool.imap_unordered(task, names)
        pool.close()
        pool.join()


def _with_progress(outcomes: Iterator[T], total: int) -> Iterator[T]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("zoo", total=total)
        for outcome in outcomes:
            progress.update(task, advance=1, description=outcome.name)
            yield outcome


def _noted(outcomes: Iterator[Outcome], path: Path | None) -> Iterator[Outcome]:
    """Write outcomes to ``path`` as they pass by, so that an interruption loses none."""
    with path.open("w") if path else nullcontext() as file:
        for outcome in outcomes:
            if file:
                print(json.dumps(outcome.as_data()), file=file, flush=True)
            yield outcome


def _title(ratio: float, *, all_kinds: bool, dynamic_batch: bool) -> str:
    what = "every dimension of every kind" if all_kinds else "the dimensions of PruneChannels"
    return f"{ratio:.0%} of {what}" + (", batch size open" if dynamic_batch else "")


def _print(outcomes: list[Outcome], title: str) -> None:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("model", "status", "parameters", "MACs", "error", "dimensions", "reach", "seconds"):
        table.add_column(column, justify="left" if column in ("model", "status") else "right", no_wrap=True)
    table.add_column("reason, or ops without a rule", overflow="fold")
    for o in outcomes:
        remark = o.reason or ("no rule: " + ", ".join(o.unknown_ops) if o.unknown_ops else "")
        numbers = (_change(o.parameters), _change(o.macs), f"{o.error:.1e}", str(o.dimensions), f"{o.reach:.1%}")
        cells = numbers if o.status in ("pruned", "wrong") else ("", "", "", "", "")
        table.add_row(o.name, o.status, *cells, f"{o.seconds:.1f}", remark)
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False)
    console.print(table)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()) + f" of {len(outcomes)}")


def _print_unreached(outcomes: list[Outcome]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False)
    counted = [outcome for outcome in outcomes if outcome.reach >= 0]  # not a number where refused
    if not counted:
        return
    mean = sum(outcome.reach for outcome in counted) / len(counted)
    console.print(f"reached on average: {mean:.2%} of the parameters of {len(counted)} models; the rest:")
    for outcome in sorted(counted, key=lambda outcome: outcome.reach):
        for reason, count in outcome.unreached:
            console.print(f"  {outcome.name}: {count:,} parameters: {reason}", soft_wrap=True)


def _change(values: tuple[int, int]) -> str:
    before, after = values
    return f"{before / 1e6:.2f}M -> {after / before:.0%}" if before else "0"


if __name__ == "__main__":
    sys.exit(main(zoo_names(), "python -m tests.zoo"))
