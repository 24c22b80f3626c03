"""Emits what follows a product: residual, activation and the store of the result."""

from __future__ import annotations

import numpy as np

from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.contract import Epilogue
from graphprune.backend.kernels.emit import Arguments, load, registers, store, widths
from graphprune.backend.kernels.tiling import Tile
from graphprune.errors import BackendError


def bias_constant(bias: np.ndarray | None, epilogue: Epilogue, size: int) -> np.ndarray:
    """Return the bias a kernel starts its sums from: ``bias``, or zeros if the epilogue has none."""
    if not epilogue.bias:
        return np.zeros(size, np.float32)
    if bias is None or np.shape(bias) != (size,):
        raise BackendError(f"the epilogue asks for a bias of {size} values, got {None if bias is None else bias.shape}")
    return np.ascontiguousarray(bias, np.float32)


def store_tile(buffers: Arguments, held, base, tile: Tile, target, row_pitch: int, activation: str) -> None:
    """Emit the epilogue and the store of one tile of positions.

    The sums of the tile's vectors follow each other in ``held`` from ``base`` on; position (0, 0) goes to
    ``out[target]``.
    Where rows are narrower than a vector, the vector is stored whole if later rows of the tile overwrite the excess.
    """
    for v, (row, column) in enumerate(tile.vectors):
        value = load(held, base + v * tile.lanes, tile.lanes)
        overwritten = row_pitch == tile.columns and row * row_pitch + tile.lanes <= tile.rows * row_pitch
        stored = tile.lanes if overwritten else tile.stored_lanes
        store_result(buffers, target + (row * row_pitch + column), value, tile.lanes, stored, activation)


def store_result(buffers: Arguments, index, value, lanes: int, stored: int, activation: str) -> None:
    """Emit ``out[index:][:stored] = activation(value + residual[index:][:stored])`` for a vector ``value``."""
    out, residual = buffers.out, buffers.residual
    if stored == lanes:
        if residual is not None:
            value = value + load(residual, index, lanes)
        store(out, index, activate(activation, value, lanes), lanes)
        return
    whole = registers(1, lanes)
    store(whole, 0, value, lanes)
    for start, width in widths(stored, lanes):
        part = load(whole, start, width)
        if residual is not None:
            part = part + load(residual, index + start, width)
        store(out, index + start, activate(activation, part, width), width)
