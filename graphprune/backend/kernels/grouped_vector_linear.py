"""Linear layer with unstructured zeros on one token, eight rows at once.

The bound is how many instructions a processor starts in a cycle, then how fast it reads memory: one input, whose
address depends on the weights, has to be loaded for each non-zero, while 5 bytes of weights come from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.column_gaps import GAP_WORDS, RECORD_WORDS, ROWS, STEPS, GapGroups
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, integers_in, load, prefetch, registers, splat, store
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.tiling import LINE_FLOATS

_LANES = 4  # rows in one vector of sums, whatever the target's: their inputs are put together one by one
_AHEAD = 32  # records that are asked for before they are used; processors stop prefetching at the end of a page
_EVEN_BYTES = 0x00FF00FF00FF00FF


def grouped_vector_linear(
    packed: GapGroups,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    features: int,
    epilogue: Epilogue,
    *,
    bextr: bool,
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for one token ``x`` [..., in] and a packed weight of ``features`` rows.

    The weight's shares are computed in parallel. ``bextr`` is as for ``integers_in``.
    """
    shares = packed.shares
    biases = bias_constant(bias, epilogue, features)
    constants = (packed.records.reshape(-1), packed.starts, packed.rows.reshape(-1), biases)
    out_shape = (*x_shape[:-1], features)
    with building("sparse_vector_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        records, starts, rows, biases = buffers.constants
        fewest, more = divmod(len(packed.rows), shares)
        with T.parallel(shares) as share:
            start = T.Bind(share * fewest + T.min(share, more))
            with T.serial(fewest + T.Cast("int32", share < more) if more else fewest) as i:
                group = T.Bind(start + i)
                sums = _group_sums(buffers.x, records, starts[group], starts[group + 1], bextr)
                with T.serial(ROWS) as lane:
                    row = T.Bind(rows[group * ROWS + lane])
                    store_result(buffers, row, sums[lane] + biases[row], 1, 1, epilogue.activation)
    return Kernel(
        "sparse_vector_linear",
        emitter.function,
        constants,
        out_shape,
        note=f"matrix-vector, {ROWS} rows at once, 8-bit column gaps",
    )


def _group_sums(x, records, start, stop, bextr: bool):
    """Emit the sums of a group's rows and return the registers that hold them."""
    sums = registers(ROWS // _LANES, _LANES, on_stack=True)
    columns = registers(2, 1, dtype="uint64", on_stack=True)  # of four rows each, 16 bits for one
    for half in range(2):
        store(sums, half * _LANES, splat(0.0, _LANES), _LANES)
        store(columns, half, T.uint64(0), 1)
    first = T.Bind(start)
    with T.serial(stop - first) as number:
        record = T.Bind((first + number) * RECORD_WORDS)
        for line in range(-(-RECORD_WORDS // LINE_FLOATS)):
            prefetch(records, record + (_AHEAD * RECORD_WORDS + line * LINE_FLOATS))
        for step in range(STEPS):
            gaps = T.Bind(T.reinterpret("uint64", load(records, record + step * GAP_WORDS, GAP_WORDS)))
            for half in range(2):
                own = T.bitwise_and(T.shift_right(gaps, T.uint64(8 * half)), T.uint64(_EVEN_BYTES))
                store(columns, half, columns[half] + own, 1)
                places = integers_in(T.Bind(columns[half]), 16, bextr=bextr)
                inputs = tirx.Shuffle([x[place] for place in places], list(range(_LANES)))
                place = STEPS * GAP_WORDS + step * ROWS + half * _LANES
                values = T.reinterpret(f"float32x{_LANES}", load(records, record + place, _LANES))
                store(sums, half * _LANES, load(sums, half * _LANES, _LANES) + values * inputs, _LANES)
    return sums
