"""Linear layer with unstructured zeros on one token: a sparse matrix-vector product.

It is computed for eight rows at once, unless that takes more memory: for a few rows, rows of very different lengths,
far-apart non-zeros, and for more columns than 16 bits count. Then rows are computed one by one, from CSR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.column_gaps import MOST_COLUMNS, pack_gaps
from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, load, load_integers, prefetch, registers, splat, store
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.grouped_vector_linear import grouped_vector_linear
from graphprune.backend.target import CompileTarget

_SUMS = 8  # independent sums per row: two vectors hide the latency of a multiply-add
_LANES = 4  # of these vectors, whatever the target's: their inputs are put together one by one
_AHEAD = 512  # non-zeros that are asked for before they are used; processors stop prefetching at the end of a page
_CHUNKS_PER_CORE = 8
_CSR_BYTES = 6  # for a non-zero: a value and a 16-bit offset


def sparse_vector_linear(
    weight: np.ndarray, bias: np.ndarray | None, x_shape: Sequence[int], epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for one token ``x`` [..., in]; ``weight`` is [out, in]."""
    features, depth = weight.shape
    chunks = min(features, _CHUNKS_PER_CORE * target.cores)
    if depth <= MOST_COLUMNS:
        gaps = pack_gaps(weight, chunks)
        if gaps.nbytes <= _CSR_BYTES * np.count_nonzero(weight):
            return grouped_vector_linear(gaps, bias, x_shape, features, epilogue, bextr=target.bextr)
    return _csr_vector_linear(weight, bias, x_shape, epilogue, chunks, target.bextr)


def _csr_vector_linear(
    weight: np.ndarray,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    epilogue: Epilogue,
    chunks: int,
    bextr: bool,
) -> Kernel:
    features, depth = weight.shape
    order = _dealt(np.count_nonzero(weight, axis=1), chunks)
    packed = pack_csr(weight[order], np.arange(depth))
    biases = bias_constant(bias, epilogue, features)
    constants = (*packed.arrays, order.astype(np.int32), biases)
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
                total = _row_sum(buffers.x, values, offsets, pointers[place], pointers[place + 1], biases[row], bextr)
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


def _row_sum(x, values, offsets, start, stop, bias, bextr: bool):
    """Emit and return ``bias`` plus the products of the non-zeros from ``start`` to ``stop``."""
    first = T.Bind(start)
    count = T.Bind(stop - first)
    sums, left = registers(_SUMS // _LANES, _LANES, on_stack=True), registers(1, 1, on_stack=True)

    def add(slot: int, e) -> None:
        places = load_integers(offsets, e, _LANES, bextr=bextr)
        inputs = tirx.Shuffle([x[place] for place in places], list(range(_LANES)))
        store(sums, slot, load(sums, slot, _LANES) + load(values, e, _LANES) * inputs, _LANES)

    for slot in range(0, _SUMS, _LANES):
        store(sums, slot, splat(0.0, _LANES), _LANES)
    store(left, 0, bias, 1)
    with T.serial(count // _SUMS) as step:
        begin = T.Bind(first + step * _SUMS)
        prefetch(values, begin + _AHEAD)
        prefetch(offsets, begin + _AHEAD)
        for slot in range(0, _SUMS, _LANES):
            add(slot, begin + slot)
    with T.serial(count % _SUMS) as rest:
        e = T.Bind(first + count // _SUMS * _SUMS + rest)
        store(left, 0, left[0] + values[e] * x[T.Cast("int32", offsets[e])], 1)
    total = T.Bind(load(sums, 0, _LANES) + load(sums, _LANES, _LANES))
    parts = [tirx.Shuffle([total], [lane]) for lane in range(_LANES)]
    return (parts[0] + parts[1]) + (parts[2] + parts[3]) + left[0]
