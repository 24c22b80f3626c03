"""Writes one self-contained HTML page: data, style and script inline, nothing loaded from anywhere."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphprune.analysis import Analysis
from graphprune.drawing.content import page_content
from graphprune.plans import Plan
from graphprune.whole_files import written_whole

SCRIPTS = ("model.js", "elements.js", "layout.js", "picture.js", "details.js", "tables.js", "search.js", "start.js")


def render_page(analysis: Analysis, *, title: str = "model", plan: Plan | None = None) -> str:
    """Return the page as text.

    Raises:
        MaskError: if ``plan`` was made for another graph.
    """
    assets = files("graphprune.drawing") / "assets"
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = "\n".join((assets / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "TITLE": html.escape(title),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _embed(page_content(analysis, title, plan)),
    }
    page = (assets / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"<!-- {name} -->", text)
    return page


def draw(analysis: Analysis, path: str | Path, *, title: str = "model", plan: Plan | None = None) -> Path:
    """Write a page that shows the graph, its dimensions, and what a plan removes; it opens without a network.

    Args:
        analysis: what :func:`graphprune.inspect` returned.
        path: the file to write, whole or not at all.
        title: heading of the page.
        plan: shows what this plan keeps and removes.

    Returns:
        The path.

    Raises:
        MaskError: if ``plan`` was made for another graph.
    """
    path = Path(path)
    text = render_page(analysis, title=title, plan=plan)
    with written_whole(path) as file:
        file.write_text(text, encoding="utf-8")
    return path


def _embed(data: Any) -> str:
    """Return data as JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
