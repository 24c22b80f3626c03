"""The table of op rules: one :class:`OpRule` for each op, registered once, looked up by the op's name.

A rule has up to three faces, kept side by side in one file of ``graphprune/rules``:

- ``infer``: how the op types its outputs and what it learns about its inputs;
- ``resize``: which of its arguments spell sizes, and their values in the smaller graph;
- ``masked``: how the masked reference runs it, for ops that compute a statistic over axes that may shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from graphprune.rules.context import Inference, MaskedInputs, Resizing, Typed

Arguments = dict[str, Any]
InferFace = Callable[[Inference, fx.Node, Arguments], Typed]
ResizeFace = Callable[[Resizing, fx.Node, Arguments], Any]
MaskedFace = Callable[[MaskedInputs, fx.Node, Arguments], Any]


@dataclass(frozen=True)
class OpRule:
    """Everything graphprune knows of one op.

    Attributes:
        op: qualified name without overload, ``aten::conv2d``.
        family: the file it lives in, ``convolution``.
        description: its equation, or one sentence.
        infer: types the outputs.
        resize: rewrites size arguments in place and may return a replacement: an op overload, or an operand if the node
            is not needed any more; None if nothing to do.
        masked: computes the op on kept elements only; None if zeros do not disturb it.
        pin_reason: why every axis that the op touches is pinned; empty if the op is followed.
    """

    op: str
    family: str
    description: str
    infer: InferFace
    resize: ResizeFace | None = None
    masked: MaskedFace | None = None
    pin_reason: str = ""


_RULES: dict[str, OpRule] = {}


def _qualified(op: str) -> str:
    return op if "::" in op else f"aten::{op}"


def register(ops: Iterable[str], family: str, description: str, infer: InferFace) -> None:
    """Add one rule for each name in ``ops`` (``conv2d`` means ``aten::conv2d``); a second one for an op is an error."""
    for op in map(_qualified, ops):
        if op in _RULES:
            raise ValueError(f"two rules for {op}: {_RULES[op].family} and {family}")
        _RULES[op] = OpRule(op, family, description, infer)


def register_pinned(ops: Iterable[str], reason: str) -> None:
    """Add a rule for each name in ``ops`` that pins all axes of all operands and results, for ``reason``."""

    def infer(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
        return context.pin_everything(node, reason)

    for op in map(_qualified, ops):
        register([op], "pinned", f"pinned: {reason}", infer)
        _RULES[op] = replace(_RULES[op], pin_reason=reason)


def rule(*ops: str) -> Callable[[InferFace], InferFace]:
    """Register the decorated function as the ``infer`` face of ``ops``; its docstring describes them."""

    def decorate(infer: InferFace) -> InferFace:
        family = infer.__module__.rsplit(".", 1)[-1]
        register(ops, family, (infer.__doc__ or "").strip().splitlines()[0], infer)
        return infer

    return decorate


def resize(*ops: str) -> Callable[[ResizeFace], ResizeFace]:
    """Register the decorated function as the ``resize`` face of ``ops``, which have a rule already."""

    def decorate(face: ResizeFace) -> ResizeFace:
        for op in map(_qualified, ops):
            _RULES[op] = replace(_RULES[op], resize=_unset(op, "resize", face))
        return face

    return decorate


def masked(*ops: str) -> Callable[[MaskedFace], MaskedFace]:
    """Register the decorated function as the ``masked`` face of ``ops``, which have a rule already."""

    def decorate(face: MaskedFace) -> MaskedFace:
        for op in map(_qualified, ops):
            _RULES[op] = replace(_RULES[op], masked=_unset(op, "masked", face))
        return face

    return decorate


def _unset(op: str, face_name: str, face: Any) -> Any:
    if getattr(_RULES[op], face_name) is not None:
        raise ValueError(f"two {face_name} faces for {op}")
    return face


def rule_name(node: fx.Node) -> str:
    """Return the name under which the rule of ``node`` is registered: in-place ops share their twin's rule."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return f"python::{getattr(node.target, '__name__', node.target)}"
    name = schema.name.replace("aten::__i", "aten::__")
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def rule_for(node: fx.Node) -> OpRule | None:
    """Return the rule of the op that ``node`` calls, or None if there is none."""
    return rule_named(rule_name(node))


def rule_named(name: str) -> OpRule | None:
    """Return the rule registered under a qualified name; ops that copy (``view_copy``) share their twin's rule."""
    return _RULES.get(name) or _RULES.get(name.removesuffix("_copy"))


def supported_ops() -> list[OpRule]:
    """Return all rules, sorted by family and name."""
    return sorted(_RULES.values(), key=lambda r: (r.family, r.op))
