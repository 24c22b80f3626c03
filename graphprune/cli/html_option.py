"""The option ``--html`` of commands that can draw a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _html_file(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".html", ".htm"):
        raise typer.BadParameter(f"--html must end in .html, got {path}")
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no directory {path.parent}")
    return path


HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        callback=_html_file,
        help="Write a page with a picture of the graph, coloured by dimension, that opens offline.",
    ),
]
