"""Linear layer with unstructured zeros on several tokens: tokens fill the vectors, so activations are transposed first."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.emit import arguments, building, load, registers, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.tiling import Tile, choose_tile, row_chunks
from graphprune.backend.target import CompileTarget

_CACHE_FLOATS = 16384  # input floats of one reduction block of a tile


def sparse_linear(
    weight: np.ndarray, bias: np.ndarray | None, x_shape: Sequence[int], epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for ``x`` [..., in] and ``weight`` [out, in] whose zeros cost nothing."""
    features, depth = weight.shape
    tokens = prod(x_shape[:-1])
    tile = choose_tile(1, tokens, target.lanes, target.registers - 4, overhead=3.0)
    pitch = -(-tokens // target.lanes) * target.lanes
    block = _reduction_block(depth, tile.columns)
    packed = pack_csr(weight, np.arange(depth) * pitch, block)
    granule = target.lanes
    while granule > features:
        granule //= 2
    chunks = row_chunks(features, tile.count, target.cores, granule=4 * granule)
    constants = (packed.values, packed.offsets, packed.pointers, bias_constant(bias, epilogue, features))
    out_shape = (*x_shape[:-1], features)
    with building("sparse_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        columns = workspace(depth * pitch + target.lanes)
        _transpose_input(buffers.x, columns, tokens, depth, pitch)
        sums = CsrSums(columns, buffers.constants, packed, tile.starts, tile.lanes)
        _emit_tasks(sums, buffers, tile, chunks, granule, epilogue.activation)
    note = f"csr tile {tile.columns} tokens, {packed.blocks} blocks of {block} features, {chunks} row chunks"
    return Kernel("sparse_linear", emitter.function, constants, out_shape, note=note)


def _reduction_block(depth: int, columns: int) -> int:
    """Return how many input features of a tile fit the cache together."""
    fitting = max(32, _CACHE_FLOATS // columns)
    return -(-depth // -(-depth // fitting)) if depth > 1.5 * fitting else depth


def _transpose_input(x, columns, tokens: int, depth: int, pitch: int) -> None:
    """Emit ``columns[k * pitch + t] = x[t * depth + k]``."""
    with T.parallel(depth) as k, T.serial(tokens) as t:
        store(columns, k * pitch + t, load(x, t * depth + k, 1), 1)


def _emit_tasks(sums: CsrSums, buffers, tile: Tile, chunks: int, granule: int, activation: str) -> None:
    """Emit the parallel loop over (token tile, chunk of output features)."""
    features = sums.rows
    chunk_rows = max(granule, -(-features // chunks))
    with T.parallel(tile.count * chunks) as task:
        first_row = T.Bind(T.min(task % chunks * chunk_rows, features - chunk_rows))
        _, token = tile.origin(task // chunks)
        held = sums.in_workspace(first_row, chunk_rows, token)
        with T.serial(-(-chunk_rows // granule)) as group:
            row = T.Bind(T.min(group * granule, chunk_rows - granule))
            for v, start in enumerate(tile.starts):
                with T.serial(tile.stored_lanes) as lane:
                    turned = registers(1, granule)
                    for i in range(granule):
                        store(turned, i, load(held, (row + i) * sums.width + v * tile.lanes + lane, 1), 1)
                    index = (token + start + lane) * features + first_row + row
                    value = load(turned, 0, granule)
                    store_result(buffers, index, value, granule, granule, activation)
