"""Reads passes as the command line spells them: ``prune-channels{ratio=0.5,ignore=[head,stem]}``.

Names and options come from the pass classes and their dataclass fields; nothing is listed twice.

    spec   := name [ "{" option { "," option } "}" ]
    option := field "=" value
    value  := word | "[" [ value { "," value } ] "]"

A mapping is spelled as a list of pairs, ``dimension_ratio=[[layer1.*,0.2],[layer2.*,0.4]]``.
"""

from __future__ import annotations

import collections.abc
import difflib
import re
import types
import typing
from dataclasses import MISSING, Field, fields
from typing import Any

from graphprune.criteria import DATA_FREE, Criterion
from graphprune.errors import PassError
from graphprune.pass_base import Pass

_TOKEN = re.compile(r"\s*([{}\[\],=]|[^{}\[\],=\s]+(?:\s+[^{}\[\],=\s]+)*)")
_MAPPINGS = (dict, collections.abc.Mapping)
_COLLECTIONS = (tuple, list, set, frozenset, collections.abc.Sequence, collections.abc.Collection)


def available_passes() -> dict[str, type[Pass]]:
    """Return every pass class in ``graphprune.passes`` by its command-line name, sorted.

    Passes made of passes are left out: the command line chains passes by naming several.
    """
    import graphprune.passes as package

    members = (getattr(package, name) for name in getattr(package, "__all__", ()))
    classes = (member for member in members if isinstance(member, type) and issubclass(member, Pass))
    return dict(sorted((cls.command_name(), cls) for cls in classes if "passes" not in pass_options(cls)))


def pass_options(cls: type[Pass]) -> dict[str, Field[Any]]:
    """Return the options of a pass: its dataclass fields that its constructor takes, by name."""
    return {field.name: field for field in fields(cls) if field.init}


def parse_pass(text: str) -> Pass:
    """Return the pass that ``text`` spells.

    Raises:
        PassError: on bad syntax, an unknown pass or option, or a value of the wrong type; the hint lists what there is.
    """
    name, raw = _Reader(text).spec()
    passes = available_passes()
    if name not in passes:
        raise PassError(f"there is no pass {name!r}{_suggestion(name, passes)}", hint="passes: " + ", ".join(passes))
    cls = passes[name]
    options = pass_options(cls)
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in raw.items():
        if key not in options:
            raise PassError(
                f"{name} has no option {key!r}{_suggestion(key, options)}",
                hint=f"options of {name}: {', '.join(options) or 'none'}",
            )
        try:
            values[key] = _convert(value, hints[key])
        except ValueError:
            raise PassError(f"{name}{{{key}=...}}: {_spell(value)} is not {_describe(hints[key])}") from None
    for key, field in options.items():
        if key not in values and field.default is MISSING and field.default_factory is MISSING:
            raise PassError(f"{name} needs the option {key!r}", hint=f"write {name}{{{key}=...}}")
    return cls(**values)


def _suggestion(word: str, known: collections.abc.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class _Reader:
    """Recursive descent over the grammar at the top; values come out as strings and lists of them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._next = 0

    def spec(self) -> tuple[str, dict[str, Any]]:
        name = self._word("the name of a pass")
        options: dict[str, Any] = {}
        if self._accept("{"):
            while not self._accept("}"):
                key = self._word("the name of an option")
                self._expect("=")
                if key in options:
                    raise self._error(f"option {key!r} is given twice")
                options[key] = self._value()
                if self._peek() != "}":
                    self._expect(",")
        if self._peek() is not None:
            raise self._error(f"nothing may follow, found {self._peek()!r}")
        return name, options

    def _value(self) -> Any:
        if not self._accept("["):
            return self._word("a value")
        items = []
        while not self._accept("]"):
            items.append(self._value())
            if self._peek() != "]":
                self._expect(",")
        return items

    def _peek(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _accept(self, token: str) -> bool:
        found = self._peek() == token
        self._next += found
        return found

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error(f"expected {token!r}, found {self._peek() or 'the end'!r}")

    def _word(self, what: str) -> str:
        token = self._peek()
        if token is None or token in "{}[],=":
            raise self._error(f"expected {what}, found {token or 'the end'!r}")
        self._next += 1
        return token

    def _error(self, problem: str) -> PassError:
        return PassError(f"cannot read the pass {self._text!r}: {problem}", hint="write name or name{option=value,...}")


def _convert(raw: Any, hint: Any) -> Any:
    """Turn a parsed value into the type that the field's annotation asks for, or raise ValueError."""
    for candidate in _alternatives(hint):
        try:
            return _convert_to(raw, candidate)
        except ValueError:
            continue
    raise ValueError(hint)


def _alternatives(hint: Any) -> list[Any]:
    """Return the members of a union, the strictest first: ``1`` becomes a number even where a string is allowed."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        order = [type(None), bool, int, float]
        return sorted(typing.get_args(hint), key=lambda t: order.index(t) if t in order else (9 if t is str else 5))
    return [hint]


def _convert_to(raw: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint) or hint
    if origin in _MAPPINGS:
        pair = tuple[typing.get_args(hint) or (str, str)]  # type: ignore[misc]  # made from the annotation at run time
        return dict(_convert(raw, tuple[pair, ...]))
    if origin in _COLLECTIONS:
        if not isinstance(raw, list):
            raise ValueError
        items = [_convert(item, inner) for item, inner in zip(raw, _item_hints(hint, len(raw)), strict=True)]
        return items if origin is list else frozenset(items) if origin in (set, frozenset) else tuple(items)
    if not isinstance(raw, str):
        raise ValueError
    if origin is typing.Literal:
        return _one_of({str(option): option for option in typing.get_args(hint)}, raw)
    if hint is type(None):
        return _one_of({"none": None}, raw.lower())
    if hint is bool:
        return _one_of({"true": True, "false": False}, raw.lower())
    if hint in (int, float):
        return hint(raw)
    if isinstance(hint, type) and issubclass(hint, Criterion):
        return _one_of({**DATA_FREE, **{cls.__name__.lower(): cls for cls in DATA_FREE.values()}}, raw.lower())()
    if hint in (str, Any):
        return raw
    raise ValueError


def _item_hints(hint: Any, count: int) -> list[Any]:
    """Return the types of ``count`` items: the only one there is, or one for each position of a fixed tuple."""
    inner = typing.get_args(hint)
    if (typing.get_origin(hint) or hint) is tuple and inner and inner[-1] is not Ellipsis:
        if len(inner) != count:
            raise ValueError
        return list(inner)
    return [inner[0] if inner else str] * count


def _one_of(options: dict[str, Any], raw: str) -> Any:
    if raw not in options:
        raise ValueError
    return options[raw]


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(hint))
    if (typing.get_origin(hint) or hint) in _COLLECTIONS:
        inner = [_describe(item) for item in typing.get_args(hint) if item is not Ellipsis] or [_describe(str)]
        return f"a list [...] of {', '.join(inner)}"
    if (typing.get_origin(hint) or hint) in _MAPPINGS:
        return "a list [[name,value],...]"
    if isinstance(hint, type) and issubclass(hint, Criterion):
        return f"a criterion that needs no data ({', '.join(DATA_FREE)})"
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a word", type(None): "none"}
    return names.get(hint, f"something the command line can spell ({getattr(hint, '__name__', hint)})")


def _spell(raw: Any) -> str:
    return "[" + ",".join(_spell(item) for item in raw) + "]" if isinstance(raw, list) else repr(raw)
