"""Progress bars of things that take long, on standard error, and only if that is a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def progress_bar(*columns: ProgressColumn | str) -> Progress:
    """Return a bar with these columns that vanishes when done; where nobody watches it shows nothing."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
