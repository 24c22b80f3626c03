"""Name patterns (``fnmatch``) that select parameters by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from graphprune.errors import PassError


def require_matches(patterns: Iterable[str], paths: Sequence[str]) -> None:
    """Check that each pattern matches a path: a misspelt one would otherwise do nothing, in silence.

    Raises:
        PassError: for the first pattern that matches none of ``paths``.
    """
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise PassError(
                f"{pattern!r} matches no parameter", hint=f"parameters are named like {', '.join(paths[:3])}"
            )
