"""The delta-4 format: a sparse matrix as groups of eight non-zeros with four-bit column gaps.

A group holds eight values of one row in column order, the column of the first (16 bits) and, in one 32-bit word, the
seven gaps to the following ones: nibble ``i`` is ``column[i + 1] - column[i] - 1``, so a gap spans 1 to 16 columns. A
wider gap inside a group is bridged by stored zeros. A group never holds two rows: the last one of a row is filled with
zeros, whose columns may run up to seven past the end of the matrix.

One GPU lane takes one group: with float16 values that is a 16-byte load, a 4-byte load and a 2-byte load, or 2.75
bytes a stored value, and no lane needs another lane's result to know its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.errors import BackendError

GROUP = 8
"""Values in a group."""

MAX_GAP = 16
"""Widest step between neighbouring columns that a nibble can express."""

MAX_COLUMNS = 1 << 16
"""Most columns a matrix may have: the first column of a group is a 16-bit number."""

DTYPES = ("float16", "float32")

_NIBBLE_SHIFTS = np.arange(0, 4 * GROUP, 4, dtype=np.uint32)


@dataclass(frozen=True)
class Delta4:
    """A packed matrix.

    Attributes:
        shape: (rows, columns) of the dense matrix.
        values: [groups, 8], float16 or float32; bridges and fillers are zero.
        gaps: [groups] uint32, eight nibbles each; the last nibble is always zero.
        first: [groups] uint16, column of each group's first value.
        row_groups: [rows + 1] int32; row r owns groups row_groups[r] up to row_groups[r + 1].
        nonzeros: number of non-zeros in the dense matrix, so without bridges and fillers.
    """

    shape: tuple[int, int]
    values: np.ndarray
    gaps: np.ndarray
    first: np.ndarray
    row_groups: np.ndarray
    nonzeros: int

    @property
    def nbytes(self) -> int:
        """Bytes of all four arrays."""
        return self.values.nbytes + self.gaps.nbytes + self.first.nbytes + self.row_groups.nbytes

    @property
    def overhead(self) -> float:
        """Stored values per non-zero; 1.0 means no bridges and no fillers."""
        return self.values.size / max(self.nonzeros, 1)

    def columns(self) -> np.ndarray:
        """Return the column of every stored value, [groups, 8] int64."""
        steps = ((self.gaps[:, None] >> _NIBBLE_SHIFTS) & 15).astype(np.int64) + 1
        offsets = np.cumsum(steps, axis=1) - steps
        return self.first.astype(np.int64)[:, None] + offsets


def pack(weight: np.ndarray) -> Delta4:
    """Pack a dense matrix.

    Args:
        weight: [rows, columns], float16 or float32, at most 65536 columns.

    Raises:
        BackendError: if the dtype or the number of columns does not fit the format.
    """
    _check(weight)
    row_counts = np.count_nonzero(weight, axis=1)
    row_of, column_of = np.nonzero(weight)
    row_ends = np.cumsum(row_counts)
    cursor = row_ends - row_counts
    group_rows, group_columns, group_sources = [], [], []
    # All rows advance together, one group a step: the position of a bridge depends on where the group began.
    rows = np.flatnonzero(cursor < row_ends)
    while rows.size:
        columns, sources = _next_group(column_of, cursor, row_ends, rows)
        group_rows.append(rows)
        group_columns.append(columns)
        group_sources.append(sources)
        rows = rows[cursor[rows] < row_ends[rows]]
    return _assemble(weight, row_of, column_of, group_rows, group_columns, group_sources)


def unpack(packed: Delta4) -> np.ndarray:
    """Return the dense matrix that was packed."""
    dense = np.zeros(packed.shape, packed.values.dtype)
    row_of = np.repeat(np.arange(packed.shape[0]), np.diff(packed.row_groups) * GROUP)
    values = packed.values[: packed.row_groups[-1]].ravel()
    columns = packed.columns()[: packed.row_groups[-1]].ravel()
    stored = values != 0
    dense[row_of[stored], columns[stored]] = values[stored]
    return dense


def _check(weight: np.ndarray) -> None:
    if weight.ndim != 2:
        raise BackendError(f"delta-4 packs matrices, not arrays of shape {weight.shape}")
    if weight.dtype.name not in DTYPES:
        raise BackendError(f"delta-4 has no form for {weight.dtype}", hint=f"one of {', '.join(DTYPES)}")
    if weight.shape[1] > MAX_COLUMNS:
        raise BackendError(
            f"delta-4 addresses at most {MAX_COLUMNS} columns, the matrix has {weight.shape[1]}",
            hint="keep the layer dense or split its input features",
        )


def _next_group(
    column_of: np.ndarray, cursor: np.ndarray, row_ends: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill one group for each of ``rows`` and move their cursors.

    Returns the eight columns [rows, 8] and, for each, the index of its non-zero or -1 for a bridge or filler.
    """
    columns = np.empty((rows.size, GROUP), np.int64)
    sources = np.full((rows.size, GROUP), -1, np.int64)
    position, end = cursor[rows], row_ends[rows]
    current = column_of[position] - 1
    for slot in range(GROUP):
        left = position < end
        upcoming = column_of[np.minimum(position, end - 1)]
        reachable = left & ((upcoming - current <= MAX_GAP) | (slot == 0))
        bridge = np.where(left, current + MAX_GAP, current + 1)
        current = np.where(reachable, upcoming, bridge)
        columns[:, slot] = current
        sources[reachable, slot] = position[reachable]
        position = position + reachable
    cursor[rows] = position
    return columns, sources


def _assemble(
    weight: np.ndarray,
    row_of: np.ndarray,
    column_of: np.ndarray,
    group_rows: list[np.ndarray],
    group_columns: list[np.ndarray],
    group_sources: list[np.ndarray],
) -> Delta4:
    """Sort the groups by row and encode them; a matrix of zeros keeps one unused group, as arrays may not be empty."""
    row_count = weight.shape[0]
    if not group_rows:
        return Delta4(
            (row_count, weight.shape[1]),
            np.zeros((1, GROUP), weight.dtype),
            np.zeros(1, np.uint32),
            np.zeros(1, np.uint16),
            np.zeros(row_count + 1, np.int32),
            0,
        )
    rows = np.concatenate(group_rows)
    order = np.argsort(rows, kind="stable")
    columns = np.concatenate(group_columns)[order]
    sources = np.concatenate(group_sources)[order]
    nonzeros = weight[row_of, column_of]
    values = np.where(sources >= 0, nonzeros[sources], np.zeros((), weight.dtype))
    steps = np.zeros((order.size, GROUP), np.uint32)
    steps[:, :-1] = np.diff(columns, axis=1) - 1
    gaps = np.bitwise_or.reduce(steps << _NIBBLE_SHIFTS, axis=1)
    row_groups = np.zeros(row_count + 1, np.int32)
    row_groups[1:] = np.cumsum(np.bincount(rows, minlength=row_count))
    return Delta4(
        (row_count, weight.shape[1]),
        np.ascontiguousarray(values),
        gaps.astype(np.uint32),
        columns[:, 0].astype(np.uint16),
        row_groups,
        int(row_of.size),
    )
