"""Tables as text, for what ``print`` shows of a result."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_WIDTH = 160


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are aligned to the right."""

    name: str
    numeric: bool = False


def render(title: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], width: int = _WIDTH) -> str:
    """Return a table as text without colours; None is an empty cell."""
    table = Table(show_edge=False)
    for column in columns:
        table.add_column(column.name, justify="right" if column.numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False, color_system=None).print(table)
    return "\n".join([title, *(line.rstrip() for line in file.getvalue().splitlines())])
