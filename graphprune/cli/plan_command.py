"""``graphprune plan``: what a pass would remove, as bars, before anything is changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.bars import bar, shows_blocks
from graphprune.cli.html_option import HtmlOption
from graphprune.cli.models import InputOption, ModelArgument, load_model, read_passes
from graphprune.cli.screen import JsonFlag, print_json, print_table, progress, ratio

if TYPE_CHECKING:
    from graphprune.plans import Plan

BAR_WIDTH = 24


def plan(
    model: ModelArgument,
    spec: Annotated[
        str, typer.Option("--pass", "-p", metavar="SPEC", help="The pass, such as prune-channels{ratio=0.5}.")
    ],
    inputs: InputOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the plan here, for graphprune.prune and inspect.")
    ] = None,
    html: HtmlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a pass would remove from MODEL, unit by unit, and what that saves; MODEL stays as it is."""
    [chosen] = read_passes([spec])
    import graphprune
    from graphprune.tracing.trace import trace

    loaded = load_model(model, inputs)
    with progress(f"planning for {loaded.name}"):
        graph = trace(loaded.model, loaded.args, loaded.kwargs)
        made = graphprune.plan(graph, chosen)  # type: ignore[arg-type]  # refuses passes that make no plans
    if output is not None:
        made.save(output)
    if html is not None:
        graphprune.draw(graphprune.inspect(graph), html, title=loaded.name, plan=made)
    if as_json:
        print_json(_as_data(made))
        return
    print_plan(loaded.name, made)
    for written in (output, html):
        if written is not None:
            print(f"wrote {written}")


def print_plan(name: str, plan: Plan) -> None:
    """Print what a plan keeps of each dimension, and of the costs, as bars."""
    blocks = shows_blocks(sys.stdout)
    if plan.layers:
        print_table(f"{name}: {len(plan.layers)} layers are left out", ("layer",), [(x.title,) for x in plan.layers])
    else:
        _print_choices(name, plan, blocks)
    print_table(
        "cost",
        ("", "kept", "before", "after", "ratio"),
        [
            (
                key,
                bar(after, before, BAR_WIDTH, blocks=blocks),
                before,
                after,
                ratio(before, after),
            )
            for key, (before, after) in plan.cost.items()
        ],
    )
    for note in plan.notes:
        print(f"note: {note}")


def _print_choices(name: str, plan: Plan, blocks: bool) -> None:
    print_table(
        f"{name}: {len(plan.choices)} dimensions lose units",
        ("dimension", "kind", "kept", "units", "of", "removed", "requested"),
        [
            (
                choice.title,
                choice.kind,
                bar(choice.kept, choice.size, BAR_WIDTH, blocks=blocks),
                choice.kept,
                choice.size,
                choice.removed,
                choice.requested,
            )
            for choice in plan.choices
        ],
    )


def _as_data(plan: Plan) -> dict[str, object]:
    return {
        "fingerprint": plan.fingerprint,
        "cost": {key: {"before": before, "after": after} for key, (before, after) in plan.cost.items()},
        "choices": [
            {
                "name": choice.name,
                "title": choice.title,
                "kind": choice.kind,
                "size": choice.size,
                "kept": choice.keep.tolist(),
                "requested": choice.requested,
                "outer": choice.outer,
            }
            for choice in plan.choices
        ],
        "layers": [layer.title for layer in plan.layers],
        "notes": list(plan.notes),
    }
