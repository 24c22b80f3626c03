"""Name patterns (``fnmatch``) that select parameters by their paths or by the modules they are in.

A pattern matches a parameter if it matches its path or the path of a module around it: ``encoder.layer.3``,
``encoder.layer.*.attention*`` and ``encoder.layer.3.output.dense.weight`` all match the last.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from graphprune.errors import PassError


def names_of(path: str) -> list[str]:
    """Return the names a pattern may match for one parameter: its path and those of the modules around it."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def common_path(paths: Iterable[str]) -> str:
    """Return the longest path that all of ``paths`` begin with, "" if there is none."""
    shared: list[str] = []
    for level in zip(*(path.split(".") for path in paths), strict=False):
        if any(name != level[0] for name in level):
            break
        shared.append(level[0])
    return ".".join(shared)


def common_module(parameters: Iterable[str]) -> str:
    """Return the path of the innermost module around all these parameters, "" for the model itself."""
    return common_path(path.rpartition(".")[0] for path in parameters)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Say whether any of ``patterns`` matches a parameter's path or a module around it."""
    names = names_of(path)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def require_matches(patterns: Iterable[str], paths: Sequence[str], others: Sequence[str] = ()) -> None:
    """Check that each pattern matches something: a misspelt one would otherwise do nothing, in silence.

    Args:
        patterns: to check.
        paths: of parameters.
        others: further names a pattern may match, such as titles of dimensions.

    Raises:
        PassError: for the first pattern that matches nothing; the hint has the names closest to it.
    """
    patterns = list(patterns)
    if not patterns:
        return
    names = dict.fromkeys([*others, *(name for path in paths for name in names_of(path))])
    for pattern in patterns:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            raise PassError(f"{pattern!r} matches no parameter, module or dimension", hint=_hint(pattern, list(names)))


def _hint(pattern: str, names: list[str]) -> str:
    close = difflib.get_close_matches(pattern.replace("*", "").strip(". "), names, n=3, cutoff=0.5)
    if close:
        return f"close are {', '.join(map(repr, close))}"
    return f"names are like {', '.join(map(repr, names[:3]))}"
