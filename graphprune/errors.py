"""Every error graphprune raises on purpose, each of which says what is wrong, where, and what to do.

A message has up to five parts: the problem, the graph node, the axis, the line of the user's model that made the
node, and a hint. Parts that do not apply are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import Node

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\s*\n\s*(?P<code>[^\n]*)')


def source_line(node: Node | None) -> str | None:
    """Return the innermost line of user code that made ``node`` as ``file:line: code``, or None if unknown."""
    if node is None:
        return None
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    if not frames:
        return None
    outside_torch = [frame for frame in frames if "/torch/" not in frame[0]]
    file, line, _, code = (outside_torch or frames)[-1]
    return f"{file}:{line}: {code.strip()}"


class GraphPruneError(Exception):
    """Base of all errors raised by graphprune.

    Attributes:
        message: what is wrong, one sentence.
        node: name of the graph node concerned, or None.
        axis: the axis concerned, an index or a printable description, or None.
        source: the user's line of code, ``file:line: code``, or None.
        hint: what to do about it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        node: Node | str | None = None,
        axis: int | str | None = None,
        source: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.node = node if node is None or isinstance(node, str) else node.name
        self.axis = axis
        self.source = source or (None if node is None or isinstance(node, str) else source_line(node))
        self.hint = hint
        super().__init__(self._render())

    def _render(self) -> str:
        parts = [self.message]
        if self.node is not None:
            parts.append(f"  node:   {self.node}")
        if self.axis is not None:
            parts.append(f"  axis:   {self.axis}")
        if self.source is not None:
            parts.append(f"  source: {self.source}")
        if self.hint is not None:
            parts.append(f"  hint:   {self.hint}")
        return "\n".join(parts)


class TraceError(GraphPruneError):
    """The model could not be turned into an ATen graph, or the example inputs do not fit it."""


class UnsupportedOpError(GraphPruneError):
    """An op has no rule (strict mode) or no lowering for the chosen target."""


class MaskError(GraphPruneError):
    """A keep-mask or zero-mask does not fit the dimension or parameter it is for."""


class PinnedAxisError(MaskError):
    """A removal was asked of an axis that cannot change; the message carries the chain of ops that pins it."""


class EmptyAxisError(MaskError):
    """A removal would leave an axis without any element."""


class PassError(GraphPruneError):
    """A pass failed or was configured with values that make no sense; the message names the pass."""


class VerificationError(GraphPruneError):
    """A self-check failed: predicted and actual shapes or values differ. This is a bug in graphprune."""


class HardCodedSizeError(GraphPruneError):
    """A plan cannot be applied to a module in place: its Python code spells a size or constant that must change."""


class BackendError(GraphPruneError):
    """Compilation for a target failed, or the target's compiler or device is missing."""


class ArtifactError(GraphPruneError):
    """A compiled artifact is missing, corrupt, edited, or made for another version or target."""
