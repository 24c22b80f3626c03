"""Bars of text: how much of something is left, in eighths of a character where the terminal can show them."""

from __future__ import annotations

from typing import TextIO

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_REST = "░"


def bar(part: float, whole: float, width: int = 16, *, blocks: bool = False) -> str:
    """Return a bar of ``width`` characters, filled for ``part`` of ``whole``.

    Args:
        part: what is left, at least 0.
        whole: what a full bar stands for; of nothing, nothing is left.
        width: number of characters.
        blocks: draw block characters, see :func:`shows_blocks`; else ``#`` and ``.``, which print anywhere.
    """
    share = min(1.0, max(0.0, part / whole)) if whole else 0.0
    if not blocks:
        return ("#" * round(share * width)).ljust(width, ".")
    full, eighths = divmod(round(share * width * 8), 8)
    return (_EIGHTHS[8] * full + (_EIGHTHS[eighths] if eighths else "")).ljust(width, _REST)


def shows_blocks(stream: TextIO) -> bool:
    """Say whether ``stream`` is a terminal whose encoding has block characters."""
    try:
        (_EIGHTHS + _REST).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return stream.isatty()
