"""Nested containers as plain data: how a model's arguments and results nest, without torch.

A *structure* is JSON: ``{"leaf": i}``, ``{"constant": value}``, ``{"tuple": [...]}``, ``{"list": [...]}``,
``{"dict": [[key, structure], ...], "class": name}`` or ``{"namedtuple": [[field, structure], ...], "class": name}``.
Leaf ``i`` is the i-th tensor.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

from graphprune.errors import ArtifactError, BackendError

Structure = dict[str, Any]


class Record(dict[str, Any]):
    """A dict whose entries are also attributes; it stands for a model's own output class where that is absent."""

    def __getattr__(self, name: str) -> Any:
        """Return the entry ``name``."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """Return the nested value whose tensors are ``leaves``.

    Raises:
        ArtifactError: if the structure is not one of the forms above.
    """
    kind = next(iter(structure), "")
    content = structure.get(kind)
    if kind == "leaf":
        return leaves[int(content)]  # type: ignore[arg-type]
    if kind == "constant":
        return content
    if kind == "tuple":
        return tuple(unflatten(part, leaves) for part in content or ())
    if kind == "list":
        return [unflatten(part, leaves) for part in content or ()]
    if kind == "dict":
        items = {key: unflatten(part, leaves) for key, part in content or ()}
        return items if structure.get("class") in (None, "dict") else Record(items)
    if kind == "namedtuple":
        fields = [key for key, _ in content or ()]
        return namedtuple(structure["class"], fields)(*(unflatten(part, leaves) for _, part in content or ()))
    raise ArtifactError(f"unknown structure {kind!r} in the manifest")


def collect(structure: Structure, value: Any, leaves: list[Any], where: str) -> None:
    """Put the leaves of ``value`` into ``leaves``, each at its number.

    Raises:
        BackendError: if ``value`` does not nest like ``structure``; the message calls it ``where``.
    """
    kind = next(iter(structure), "")
    content = structure[kind]
    if kind == "leaf":
        leaves[content] = value
    elif kind == "constant":
        if type(value) is not type(content) or value != content:
            raise BackendError(
                f"{where} must be {content!r}, the value the model was compiled with, got {value!r}",
                hint="compile again with other example inputs",
            )
    elif kind in ("tuple", "list"):
        _expect(isinstance(value, (tuple, list)), where, f"a {kind} of {len(content)}", value)
        _expect(len(value) == len(content), where, f"{len(content)} values", value)
        for i, (part, item) in enumerate(zip(content, value, strict=True)):
            collect(part, item, leaves, f"{where}[{i}]")
    elif kind == "dict":
        _expect(isinstance(value, Mapping), where, "a dict", value)
        keys = [key for key, _ in content]
        _expect(set(value) == set(keys), where, f"the keys {keys}", list(value))
        for key, part in content:
            collect(part, value[key], leaves, f"{where}[{key!r}]")
    else:
        fields = [key for key, _ in content]
        _expect(all(hasattr(value, key) for key in fields), where, f"the fields {fields}", value)
        for key, part in content:
            collect(part, getattr(value, key), leaves, f"{where}.{key}")


def _expect(condition: bool, where: str, expected: str, got: Any) -> None:
    if not condition:
        described = got if isinstance(got, list) and all(isinstance(item, str) for item in got) else type(got).__name__
        if isinstance(got, (tuple, list)) and described is not got:
            described = f"{described} of {len(got)}"
        raise BackendError(f"{where}: expected {expected}, got {described}", hint="pass what the model was traced with")
