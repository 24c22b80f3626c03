"""Packed forms of weights, as plain numpy: what kernels read instead of a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockedCsr:
    """CSR cut along the reduction axis, with each non-zero's column replaced by the offset its kernel reads at.

    Attributes:
        values: float32 [non-zeros], ordered by block, then row, then column.
        offsets: [non-zeros], offset into the kernel's input from the block's origin on; uint16 if all of them fit,
            else int32.
        pointers: int32 [blocks * rows + 1]; row m of block b starts at ``pointers[b * rows + m]``.
        rows: output rows.
        blocks: reduction blocks.
        block_stride: from one block's origin in the kernel's input to the next one's.

    ``values`` and ``offsets`` hold one unused zero if there are no non-zeros at all, since kernels cannot take empty
    buffers.
    """

    values: np.ndarray
    offsets: np.ndarray
    pointers: np.ndarray
    rows: int
    blocks: int
    block_stride: int = 0

    @property
    def note(self) -> str:
        """How offsets are stored, for people."""
        return f"{8 * self.offsets.itemsize}-bit offsets"


def pack_csr(matrix: np.ndarray, block_offsets: np.ndarray, block_stride: int = 0) -> BlockedCsr:
    """Pack ``matrix`` [rows, columns] into blocks of ``len(block_offsets)`` columns.

    ``block_offsets`` says where the kernel reads the columns of a block, from the block's origin on, and
    ``block_stride`` how far the next block's origin is.

    Where offsets need more than 16 bits they take 32. Smaller forms are possible (steps from one non-zero to the next,
    multiples of a common divisor), but cost a kernel 2 to 4 %, and only layers with large planes need them, which have
    few weights.
    """
    rows, columns = matrix.shape
    block = len(block_offsets)
    blocks = max(1, -(-columns // block))
    row, column = np.nonzero(matrix)
    order = np.lexsort((column, row, column // block))
    row, column = row[order], column[order]
    counts = np.bincount(column // block * rows + row, minlength=blocks * rows)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = matrix[row, column].astype(np.float32)
    offsets = block_offsets[column % block]
    if not len(values):
        values, offsets = np.zeros(1, np.float32), np.zeros(1, np.int64)
    fits = offsets.max() <= np.iinfo(np.uint16).max
    return BlockedCsr(values, offsets.astype(np.uint16 if fits else np.int32), pointers, rows, blocks, block_stride)


def tile_starts(extent: int, tile: int) -> np.ndarray:
    """Return where tiles of ``tile`` start that cover ``extent``; the last one is moved back to end at the edge."""
    return np.minimum(np.arange(0, extent, tile), extent - tile)


def pack_panels(matrix: np.ndarray, panel: int) -> np.ndarray:
    """Pack ``matrix`` [rows, columns] into float32 panels [ceil(rows / panel), columns, panel] of ``panel`` rows each.

    Where ``panel`` does not divide the rows, the last panel is moved back and repeats some rows of the one before.
    """
    rows = tile_starts(matrix.shape[0], panel)[:, None] + np.arange(panel)
    return np.ascontiguousarray(matrix[rows].transpose(0, 2, 1), dtype=np.float32)


def pack_blocked_panels(matrix: np.ndarray, panel: int, length: int) -> np.ndarray:
    """Pack ``matrix`` into panels as ``pack_panels`` does, ``length`` columns of all panels before the next columns."""
    panels = pack_panels(matrix, panel)
    return np.concatenate([panels[:, k : k + length].ravel() for k in range(0, matrix.shape[1], length)])
