"""``graphprune prune``: run passes on a model and save the smaller one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.models import InputOption, ModelArgument, PassOption, load_model, read_passes
from graphprune.cli.screen import JsonFlag, print_json, print_table, progress, ratio

if TYPE_CHECKING:
    from torch import fx


def prune(
    model: ModelArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the result here, as .pt2.")] = None,
    passes: PassOption = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Remove what this plan of `graphprune plan` says, before any --pass."),
    ] = None,
    inputs: InputOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply a plan to MODEL, run passes on it, print what changed, and save the result with torch.export."""
    if not passes and plan is None:
        raise typer.BadParameter("give at least one --pass, such as --pass prune-channels{ratio=0.5}, or --plan FILE")
    if output is not None and output.suffix != ".pt2":
        raise typer.BadParameter(f"--output must end in .pt2, got {output}")
    chosen = read_passes(passes)
    import graphprune
    from graphprune.graph import graph_info
    from graphprune.tracing.trace import trace

    planned = None if plan is None else graphprune.Plan.load(plan)
    loaded = load_model(model, inputs)
    with progress(f"tracing {loaded.name}"):
        original = trace(loaded.model, loaded.args, loaded.kwargs)
    with progress("pruning"):
        smaller = original if planned is None else graphprune.prune(original, planned)
        pruned = graphprune.prune(smaller, chosen)
    if output is not None:
        save(pruned, output)
    sizes = {"before": measure(original), "after": measure(pruned)}
    history = graph_info(pruned).history
    if as_json:
        records = [{"pass": r.spec, "seconds": r.seconds, "summary": r.summary} for r in history]
        files = {"plan": plan and str(plan), "output": output and str(output)}
        print_json({"model": loaded.name, "sizes": sizes, "passes": records, **files})
        return
    print_table(
        loaded.name,
        ("", "before", "after", "ratio"),
        [
            (key, sizes["before"][key], value, ratio(sizes["before"][key], value))
            for key, value in sizes["after"].items()
        ],
    )
    if history:
        rows = [(r.spec, r.seconds, summarize(r.summary)) for r in history]
        print_table("passes", ("pass", "seconds", "summary"), rows)
    if output is not None:
        print(f"saved {output}")


def save(gm: fx.GraphModule, path: Path) -> None:
    """Save a traced graph with torch.export, its example inputs included."""
    import torch

    from graphprune.graph import graph_info

    info = graph_info(gm)
    program = torch.export.export(gm, info.example_args, info.example_kwargs, dynamic_shapes=info.dynamic_shapes)
    torch.export.save(program, path)


def measure(gm: fx.GraphModule) -> dict[str, int]:
    """Return the number of parameters, of those that are not zero, and of MACs; tied parameters count once."""
    from graphprune.analysis import analyze

    cost = analyze(gm).cost()
    distinct = {id(parameter): parameter for parameter in gm.parameters()}.values()
    non_zero = sum(int(parameter.count_nonzero()) for parameter in distinct)
    return {"parameters": cost["parameters"], "non-zero parameters": non_zero, "MACs": cost["macs"]}


def summarize(summary: dict[str, Any]) -> str:
    """Spell a pass's summary on one line: numbers and words as they are, of collections the count."""
    parts = []
    for key, value in summary.items():
        if isinstance(value, (list, tuple, dict)):
            parts.append(f"{key}: {len(value)}" if len(value) > 3 else f"{key}: {json.dumps(value, default=str)}")
        else:
            parts.append(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    return ", ".join(parts)
