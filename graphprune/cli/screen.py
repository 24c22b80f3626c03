"""What the subcommands print: tables or JSON on standard output, progress on standard error if that is a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def output() -> Console:
    """Return the console for results; wide and without colours when standard output is not a terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def errors() -> Console:
    """Return the console for everything that is not a result."""
    return Console(file=sys.stderr, highlight=False)


def print_json(data: Any) -> None:
    """Print plain data as indented JSON; what JSON cannot spell is printed as its ``str``."""
    print(json.dumps(data, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    table = Table(title=title, title_justify="left", show_edge=False)
    for position, column in enumerate(columns):
        texts = [row[position] for row in cells if row[position]]
        numeric = bool(texts) and all(_is_number(text) for text in texts)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    output().print(table)


def cell(value: object) -> str:
    """Spell one value: thousands separated, floats to four digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def ratio(before: int, after: int) -> str:
    """Spell what is left as a percentage, or nothing if there was nothing."""
    return f"{after / before:.1%}" if before else ""


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").rstrip("%×"))
    except ValueError:
        return False
    return True


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show a spinner beside ``what`` while the block runs, if standard error is a terminal; else nothing."""
    console = errors()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
