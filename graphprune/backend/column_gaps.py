"""Packs a sparse matrix for one vector: eight rows side by side, the gap from one column to the next in a byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS = 8  # rows of a group
STEPS = 2  # non-zeros of each row in a record
GAP_WORDS = ROWS // 4  # 32-bit words that hold a step's gaps
RECORD_WORDS = STEPS * (GAP_WORDS + ROWS)
MOST_COLUMNS = 2**16  # kernels keep running columns in 16 bits
_LARGEST_GAP = 255


@dataclass(frozen=True)
class GapGroups:
    """Rows in groups of eight, the non-zeros of a group in records that kernels read one after the other.

    A record holds ``STEPS`` non-zeros of each row: first all gaps, then all values. A row's first gap is its first
    column. Byte ``2 * i`` of a step's gaps belongs to row i, byte ``2 * i + 1`` to row ``4 + i``, so that masking
    every other byte of a 64-bit word leaves the gaps of four rows in 16 bits each. Where a gap does not fit a byte,
    zeros are stored on the way; they also fill the rows of a group up to the longest.

    Attributes:
        records: uint32 [records, RECORD_WORDS]; the values are float32.
        starts: int32 [groups + 1]; group g owns ``records[starts[g]:starts[g + 1]]``.
        rows: int32 [groups, 8], which rows of the matrix a group computes; one row may come several times in a group.
        shares: consecutive groups of about equal work, the first shares one group longer where they cannot be equal.

    ``records`` holds one unused record if there are no non-zeros, since kernels cannot take empty buffers.
    """

    records: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    shares: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.records.nbytes + self.starts.nbytes + self.rows.nbytes


def pack_gaps(matrix: np.ndarray, shares: int) -> GapGroups:
    """Pack ``matrix`` [rows, columns], its groups dealt out to at most ``shares`` shares.

    Rows of one group are about equally long. Shares begin with their longest rows, and a group is about as long as the
    one before it, so that processors predict where loops end.

    Raises:
        ValueError: for more than ``MOST_COLUMNS`` columns.
    """
    if matrix.shape[1] > MOST_COLUMNS:
        raise ValueError(f"running columns have 16 bits, the matrix has {matrix.shape[1]} columns")
    owner, gaps, values = _entries(matrix)
    lengths = np.bincount(owner, minlength=len(matrix))
    rows = _groups(lengths, shares)
    sizes = -(-lengths[rows].max(axis=1) // STEPS)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    records = np.zeros((max(1, starts[-1]), RECORD_WORDS), np.uint32)
    gap_bytes = records[:, : STEPS * GAP_WORDS].view(np.uint8).reshape(len(records), STEPS, ROWS)
    numbers = records[:, STEPS * GAP_WORDS :].view(np.float32).reshape(len(records), STEPS, ROWS)
    first_entry = np.cumsum(lengths) - lengths
    for lane, row in enumerate(rows.T):
        counts = lengths[row]
        k = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # entry k of its row
        entry = np.repeat(first_entry[row], counts) + k
        record = np.repeat(starts[:-1], counts) + k // STEPS
        gap_bytes[record, k % STEPS, lane % 4 * 2 + lane // 4] = gaps[entry]
        numbers[record, k % STEPS, lane] = values[entry]
    return GapGroups(records, starts, rows, min(shares, len(rows)))


def _entries(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, gap, value) of what is stored, by rows: the non-zeros, and zeros where gaps are too large."""
    row, column = (index.astype(np.int32) for index in np.nonzero(matrix))
    before = np.concatenate([[0], column[:-1]])[: len(column)]
    before[np.diff(row, prepend=-1) != 0] = 0
    gap = column - before
    bridges = np.maximum(gap - 1, 0) // _LARGEST_GAP
    last = np.cumsum(bridges + 1) - 1
    gaps = np.full(last[-1] + 1 if len(last) else 0, _LARGEST_GAP, np.uint8)
    values = np.zeros(len(gaps), np.float32)
    gaps[last] = gap - bridges * _LARGEST_GAP
    values[last] = matrix[row, column]
    return np.repeat(row, bridges + 1), gaps, values


def _groups(lengths: np.ndarray, shares: int) -> np.ndarray:
    """Return the rows [groups, 8] of each group: by length, then dealt out to shares."""
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    order = np.concatenate([order, np.repeat(order[-1:], -len(order) % ROWS)]).reshape(-1, ROWS)
    return np.concatenate([order[share::shares] for share in range(min(shares, len(order)))])
