"""Emits what follows a product: residual, activation and the store of the result."""

from __future__ import annotations

import numpy as np

from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.contract import Epilogue
from graphprune.backend.kernels.emit import load, registers, store, widths
from graphprune.errors import BackendError


def bias_constant(bias: np.ndarray | None, epilogue: Epilogue, size: int) -> np.ndarray:
    """Return the bias a kernel starts its sums from: ``bias``, or zeros if the epilogue has none."""
    if not epilogue.bias:
        return np.zeros(size, np.float32)
    if bias is None or np.shape(bias) != (size,):
        raise BackendError(f"the epilogue asks for a bias of {size} values, got {None if bias is None else bias.shape}")
    return np.ascontiguousarray(bias, np.float32)


def store_result(out, residual, index, value, lanes: int, stored: int, activation: str) -> None:
    """Emit ``out[index:][:stored] = activation(value + residual[index:][:stored])`` for a vector ``value``."""
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
