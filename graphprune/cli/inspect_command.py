"""``graphprune inspect``: what of a model can be pruned, what cannot, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.cli.html_option import HtmlOption
from graphprune.cli.models import InputOption, ModelArgument, load_model
from graphprune.cli.screen import JsonFlag, print_json, print_table, progress


def inspect(
    model: ModelArgument,
    inputs: InputOption = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            "--explain", metavar="PARAMETER:AXIS", help="Say what goes with a parameter's axis, or why it stays."
        ),
    ] = None,
    html: HtmlOption = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Show on the page what this plan keeps (see graphprune plan).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the dimensions of MODEL that can be pruned, the reasons why the rest cannot, and ops without a rule."""
    if plan is not None and html is None:
        raise typer.BadParameter("--plan is shown on the page: give --html FILE too")
    questions = [_question(text) for text in explain or ()]
    import graphprune

    loaded = load_model(model, inputs)
    with progress(f"analysing {loaded.name}"):
        analysis = graphprune.inspect(loaded.model, example_inputs=loaded.args, example_kwargs=loaded.kwargs)
    if html is not None:
        graphprune.draw(analysis, html, title=loaded.name, plan=None if plan is None else graphprune.Plan.load(plan))
    answers = [analysis.explain(parameter, axis) for parameter, axis in questions]
    if as_json:
        print_json(_as_data(analysis) | ({"explanations": answers} if answers else {}))
    elif answers:
        print("\n\n".join(answers))
    else:
        _print(loaded.name, analysis)
        if html is not None:
            print(f"wrote {html}")


def _question(text: str) -> tuple[str, int]:
    parameter, _, axis = text.rpartition(":")
    if not parameter or not axis.lstrip("-").isdigit():
        raise typer.BadParameter(f"cannot read --explain {text!r}: write a parameter and an axis, as in conv1.weight:0")
    return parameter, int(axis)


def _as_data(analysis: Any) -> dict[str, Any]:
    return {
        "fingerprint": analysis.fingerprint,
        "dimensions": [
            {
                "name": d.name,
                "title": d.title,
                "size": d.size,
                "kind": d.kind,
                "members": [f"{path}:{axis}" for path, axis in d.members],
                "renormalised_at": list(d.statistics),
            }
            for d in analysis.dimensions
        ],
        "pins": [{"axis": f"{path}:{axis}", "reason": reason} for path, axis, reason in analysis.pins],
        "unknown_ops": analysis.unknown_ops,
    }


def _print(name: str, analysis: Any) -> None:
    print_table(
        f"{name}: {len(analysis.dimensions)} dimensions",
        ("dimension", "units", "kind", "parameter axes", "renormalised at"),
        [(d.title, d.size, d.kind, len(d.members), ", ".join(d.statistics[:3])) for d in analysis.dimensions],
    )
    reasons = Counter(reason for _, _, reason in analysis.pins)
    first = {reason: f"{path}:{axis}" for path, axis, reason in reversed(analysis.pins)}
    print_table(
        "parameter axes that stay as they are",
        ("reason", "axes", "first"),
        [(reason, count, first[reason]) for reason, count in reasons.most_common()],
    )
    if analysis.unknown_ops:
        print_table(
            "ops without a rule: everything they touch stays as it is",
            ("op", "nodes", "first"),
            [(op, len(nodes), nodes[0]) for op, nodes in analysis.unknown_ops.items()],
        )
