"""``graphprune compile``: from a model to an artifact that runs without PyTorch."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.cli.models import InputOption, ModelArgument, PassOption, load_model, read_passes
from graphprune.cli.screen import JsonFlag, print_json, print_table, progress
from graphprune.errors import BackendError

TargetOption = Annotated[
    str | None,
    typer.Option("--target", "-t", help="TVM target, as words or JSON; default: this machine's processor."),
]


def compile_(
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the artifact here (.gp, or a folder).")
    ] = None,
    passes: PassOption = None,
    inputs: InputOption = None,
    target: TargetOption = None,
    winograd: Annotated[
        bool, typer.Option(help="Compute dense convolutions by Winograd's algorithm where that is faster.")
    ] = True,
    tune: Annotated[
        bool, typer.Option("--tune", help="Time several ways to compute each layer; take the fastest.")
    ] = False,
    tune_seconds: Annotated[float | None, typer.Option("--tune-seconds", help="Stop timing after this long.")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of tuning results; alone: use them and time nothing.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run passes on MODEL, compile the result with TVM, print what each layer became, and write the artifact."""
    chosen = read_passes(passes)
    options = target_options(target)
    import graphprune

    loaded = load_model(model, inputs)
    tuning = {"winograd": winograd, "tune": tune, "tune_seconds": tune_seconds, "cache": cache}
    with nullcontext() if tune else progress(f"compiling {loaded.name}"):  # the search shows its own progress
        compiled = graphprune.compile(
            loaded.model, chosen, example_inputs=loaded.args, example_kwargs=loaded.kwargs, **options, **tuning
        )
    written = None if output is None else compiled.export(output)
    report = compiled.report()
    if as_json:
        print_json({"model": loaded.name, "report": report.as_dict(), "output": written and str(written)})
        return
    print_report(loaded.name, report)
    if written is not None:
        print(f"wrote {written}")


def target_options(target: str | None) -> dict[str, Any]:
    """Return the ``target`` argument of ``graphprune.compile`` for a word of the command line; none for the default.

    Raises:
        BackendError: if ``target`` starts like JSON but is not.
    """
    if target is None:
        return {}
    if not target.lstrip().startswith("{"):
        return {"target": target}
    try:
        return {"target": json.loads(target)}
    except json.JSONDecodeError as error:
        raise BackendError(f"--target is not JSON: {error}", hint='write --target \'{"kind": "llvm"}\'') from error


def print_report(name: str, report: Any) -> None:
    """Print a compile report as tables."""
    print_table(
        f"{name} for {report.target}",
        ("layer", "kind", "shape", "density", "kernel", "note", "reason", *(("tuning",) if report.tuned else ())),
        [
            (r.name, r.kind, "x".join(map(str, r.shape)), _percent(r.density), r.kernel, r.note, r.reason)
            + ((r.timing,) if report.tuned else ())
            for r in report.layers
        ],
    )
    print_table("passes", ("pass", "seconds"), [(record.spec, record.seconds) for record in report.passes])
    for function, reason in report.unscheduled.items():
        print(f"not fully scheduled: {function}: {reason}")
    print(", ".join(f"{step}: {seconds:.1f} s" for step, seconds in report.seconds.items()))


def _percent(density: float | None) -> str | None:
    return None if density is None else f"{density:.1%}"
