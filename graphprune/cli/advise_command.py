"""``graphprune advise``: what pruning would buy on this machine, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli.compile_command import TargetOption, target_options
from graphprune.cli.models import InputOption, ModelArgument, load_model
from graphprune.cli.screen import JsonFlag, print_json


def advise(
    model: ModelArgument,
    inputs: InputOption = None,
    target: TargetOption = None,
    sparsities: Annotated[
        list[float] | None, typer.Option("--sparsity", help="A fraction of zeros to measure; repeat for several.")
    ] = None,
    ratios: Annotated[
        list[float] | None, typer.Option("--ratio", help="A fraction of channels to remove; repeat for several.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long to measure; Ctrl-C ends earlier.")] = 60.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads; default: all cores.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw speed-up over sparsity here (.png, .svg).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the numbers here, as JSON.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure MODEL's layers here, and predict what zeros or removed channels would buy; MODEL stays as it is."""
    options = target_options(target)
    import graphprune
    from graphprune.advising import RATIOS, SPARSITIES

    loaded = load_model(model, inputs)
    if threads is not None:
        graphprune.runtime.set_num_threads(threads)
    advice = graphprune.advise(
        loaded.model,
        loaded.args,
        loaded.kwargs,
        sparsities=sparsities or SPARSITIES,
        ratios=ratios or RATIOS,
        seconds=seconds,
        **options,
    )
    if output is not None:
        advice.save(output)
    if plot is not None:
        advice.plot(plot)
    if as_json:
        print_json({"model": loaded.name, **advice.as_dict()})
        return
    print(f"{loaded.name}: {advice}")
    for written in (output, plot):
        if written is not None:
            print(f"wrote {written}")
