"""Rewrites the generated tables of the README: ``python scripts/update_readme.py [--check]``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import graphprune.passes
from graphprune.cli.ops_command import markdown_table
from graphprune.pass_spec import available_passes, pass_options

README = Path(__file__).parents[1] / "README.md"


def updated(text: str) -> str:
    """Return the README with its generated tables made anew.

    Raises:
        ValueError: if a table's markers are missing.
    """
    for name, table in (("passes", passes_table()), ("ops", markdown_table())):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the README has no <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


def passes_table() -> str:
    """Return one row for each pass: class, what it does, its options."""
    lines = ["| pass | does | options |", "|---|---|---|"]
    for cls in [*available_passes().values(), graphprune.passes.Sequential]:
        summary = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split()).replace("``", "`")
        options = ", ".join(f"`{name}`" for name in pass_options(cls))
        lines.append(f"| `{cls.__name__}` | {summary} | {options} |")
    return "\n".join(lines)


def main() -> int:
    """Write the README, or with ``--check`` say whether it is current."""
    current = README.read_text(encoding="utf-8")
    new = updated(current)
    if "--check" in sys.argv[1:]:
        return int(new != current)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
