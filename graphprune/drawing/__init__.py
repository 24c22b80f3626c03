"""Pictures of a graph: :func:`draw` writes a page that opens offline."""

from graphprune.drawing.page import draw, render_page

__all__ = ["draw", "render_page"]
