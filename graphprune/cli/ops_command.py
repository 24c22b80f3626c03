"""``graphprune ops``: the ops that graphprune knows how to prune through."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Any

import typer

from graphprune.cli.screen import JsonFlag, print_json, print_table


def ops(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of graphprune/rules/OPS.md.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the ops that have a rule, with the rule's equation or description."""
    rules = supported_rules()
    if as_json:
        print_json([{"op": r.op, "family": r.family, "rule": r.description} for r in rules])
    elif markdown:
        print(markdown_table())
    else:
        print_table(f"{len(rules)} ops", ("op", "family", "rule"), [(r.op, r.family, r.description) for r in rules])


def supported_rules() -> list[Any]:
    """Return every registered rule, sorted by family and name."""
    from graphprune.rules import supported_ops

    return supported_ops()


def markdown_table() -> str:
    """Return the table of OPS.md: one row for each family and rule, with the ops that share it."""
    lines = ["| family | rule | ops |", "|---|---|---|"]
    for family, members in groupby(supported_rules(), key=lambda rule: rule.family):
        by_rule: dict[str, list[str]] = {}
        for rule in members:
            by_rule.setdefault(rule.description, []).append(rule.op.removeprefix("aten::"))
        for description, names in by_rule.items():
            spelled = ", ".join(f"`{name}`" for name in names)
            lines.append(f"| {family} | {_escape(description)} | {spelled} |")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
