"""Linear layer with unstructured zeros on one token: a sparse matrix-vector product, bound by reading the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, prefetch, registers, store
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.target import CompileTarget

_SUMS = 8  # independent sums per row: two vectors of four hide the latency of a multiply-add
_AHEAD = 512  # non-zeros that are asked for before they are used; processors stop prefetching at the end of a page
_CHUNKS_PER_CORE = 8


def sparse_vector_linear(
    weight: np.ndarray, bias: np.ndarray | None, x_shape: Sequence[int], epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for one token ``x`` [..., in]; ``weight`` is [out, in]."""
    features, depth = weight.shape
    chunks = min(features, _CHUNKS_PER_CORE * target.cores)
    order = _dealt(np.count_nonzero(weight, axis=1), chunks)
    packed = pack_csr(weight[order], np.arange(depth))
    biases = bias_constant(bias, epilogue, features)
    constants = (packed.values, packed.offsets, packed.pointers, order.astype(np.int32), biases)
    out_shape = (*x_shape[:-1], features)
    with building("sparse_vector_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        values, offsets, pointers, rows, biases = buffers.constants
        fewest, more = divmod(features, chunks)
        with T.parallel(chunks) as chunk:
            start = T.Bind(chunk * fewest + T.min(chunk, more))
            with T.serial(fewest + T.Cast("int32", chunk < more) if more else fewest) as i:
                row = T.Bind(rows[start + i])
                place = T.Bind(start + i)
                total = _row_sum(buffers.x, values, offsets, pointers[place], pointers[place + 1], biases[row])
                store_result(buffers, row, total, 1, 1, epilogue.activation)
    return Kernel(
        "sparse_vector_linear", emitter.function, constants, out_shape, note=f"csr matrix-vector, {packed.note}"
    )


def _dealt(counts: np.ndarray, chunks: int) -> np.ndarray:
    """Return the rows in the order of their work: dealt out to chunks, longest first.

    Chunks get equal shares, and within one a row has about as many non-zeros as the row before it, so that processors
    predict where loops end.
    """
    order = np.argsort(-counts, kind="stable")
    return np.concatenate([order[chunk::chunks] for chunk in range(chunks)])


def _row_sum(x, values, offsets, start, stop, bias):
    """Emit and return ``bias`` plus the products of the non-zeros from ``start`` to ``stop``."""
    first = T.Bind(start)
    count = T.Bind(stop - first)
    sums = registers(_SUMS, 1)

    def add(slot: int, e) -> None:
        store(sums, slot, sums[slot] + values[e] * x[T.Cast("int32", offsets[e])], 1)

    for slot in range(_SUMS):
        store(sums, slot, T.float32(0) if slot else bias, 1)
    with T.serial(count // _SUMS) as step:
        begin = T.Bind(first + step * _SUMS)
        prefetch(values, begin + _AHEAD)
        prefetch(offsets, begin + _AHEAD)
        for slot in range(_SUMS):
            add(slot, begin + slot)
    with T.serial(count % _SUMS) as rest:
        add(0, T.Bind(first + count // _SUMS * _SUMS + rest))
    pairs = [sums[slot] + sums[slot + _SUMS // 2] for slot in range(_SUMS // 2)]
    return (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
