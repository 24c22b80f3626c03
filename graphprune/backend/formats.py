"""Packed forms of weights, as plain numpy: what kernels read instead of a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockedCsr:
    """CSR cut along the reduction axis, with each non-zero's column replaced by the offset its kernel reads at.

    Attributes:
        values: float32 [non-zeros], ordered by block, then row, then column.
        offsets: int32 [non-zeros], offset into the kernel's input for each value.
        pointers: int32 [blocks * rows + 1]; row m of block b starts at ``pointers[b * rows + m]``.
        rows: output rows.
        blocks: reduction blocks.

    ``values`` and ``offsets`` hold one unused zero if there are no non-zeros at all, since kernels cannot take empty
    buffers.
    """

    values: np.ndarray
    offsets: np.ndarray
    pointers: np.ndarray
    rows: int
    blocks: int


def pack_csr(matrix: np.ndarray, column_offsets: np.ndarray, block: int) -> BlockedCsr:
    """Pack ``matrix`` [rows, columns] into blocks of ``block`` columns; ``column_offsets`` [columns] maps columns."""
    rows, columns = matrix.shape
    blocks = max(1, -(-columns // block))
    row, column = np.nonzero(matrix)
    order = np.lexsort((column, row, column // block))
    row, column = row[order], column[order]
    counts = np.bincount(column // block * rows + row, minlength=blocks * rows)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = matrix[row, column].astype(np.float32)
    offsets = column_offsets[column].astype(np.int32)
    if not len(values):
        values, offsets = np.zeros(1, np.float32), np.zeros(1, np.int32)
    return BlockedCsr(values, offsets, pointers, rows, blocks)


def tile_starts(extent: int, tile: int) -> np.ndarray:
    """Return where tiles of ``tile`` start that cover ``extent``; the last one is moved back to end at the edge."""
    return np.minimum(np.arange(0, extent, tile), extent - tile)


def pack_panels(matrix: np.ndarray, panel: int) -> np.ndarray:
    """Pack ``matrix`` [rows, columns] into float32 panels [ceil(rows / panel), columns, panel] of ``panel`` rows each.

    Where ``panel`` does not divide the rows, the last panel is moved back and repeats some rows of the one before.
    """
    rows = tile_starts(matrix.shape[0], panel)[:, None] + np.arange(panel)
    return np.ascontiguousarray(matrix[rows].transpose(0, 2, 1), dtype=np.float32)
