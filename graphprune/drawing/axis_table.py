"""Axis types as plain data for a page, each distinct type once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphprune.axes import Axis, KeepMasks, Kind, leaves, pin_of, resolve

MAX_PARTS = 12
"""A sum or product of more parts than this is shown by its first ones."""


class AxisTable:
    """Collects axis types and gives each a number.

    Args:
        dimension_of: identity of a leaf -> number of its dimension.
        node_numbers: name of a graph node -> its number on the page.
        masks: keep-masks of a plan, or None.
    """

    def __init__(
        self, dimension_of: Mapping[int, int], node_numbers: Mapping[str, int], masks: KeepMasks | None
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}
        self._dimension_of = dimension_of
        self._node_numbers = node_numbers
        self._masks = masks

    def number(self, axis: Axis) -> int:
        """Return the number of an axis type, adding a row for it the first time."""
        axis = resolve(axis)
        if axis.identity not in self._numbers:
            self._numbers[axis.identity] = len(self.rows)
            self.rows.append(self._row(axis))
        return self._numbers[axis.identity]

    def dimensions(self, axis: Axis) -> list[int]:
        """Return the numbers of the dimensions in an axis type, largest first."""
        free = [leaf for leaf in leaves(axis) if leaf.identity in self._dimension_of]
        free.sort(key=lambda leaf: -leaf.size if isinstance(leaf.size, int) else 0)
        return [self._dimension_of[leaf.identity] for leaf in free]

    def _row(self, axis: Axis) -> dict[str, Any]:
        row: dict[str, Any] = {"size": str(axis.size), "dimensions": self.dimensions(axis)}
        pin = pin_of(axis)
        if pin is not None:
            row["pin"] = [pin.reason, self._node_numbers.get(pin.node or "", -1)]
        else:
            row["type"] = self._type(axis)
        if self._masks is not None and self._masks.changes(axis):
            row["kept"] = str(self._masks.count(axis))
        return row

    def _type(self, axis: Axis) -> Any:
        """Return a leaf as [size, dimension number, -1 if it is pinned or -2 if no parameter is behind it]."""
        axis = resolve(axis)
        if axis.kind is Kind.LEAF:
            return [str(axis.size), -1 if axis.pin else self._dimension_of.get(axis.identity, -2)]
        symbol = "×" if axis.kind is Kind.PRODUCT else "+"
        parts = [self._type(part) for part in axis.parts[:MAX_PARTS]]
        return {symbol: [*parts, len(axis.parts) - MAX_PARTS] if len(axis.parts) > MAX_PARTS else parts}
