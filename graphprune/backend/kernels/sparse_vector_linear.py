"""Linear layer with unstructured zeros on one token: a sparse matrix-vector product, bound by reading the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, registers, store
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.target import CompileTarget

_SUMS = 4  # independent scalar sums per row, to hide the latency of a multiply-add


def sparse_vector_linear(
    weight: np.ndarray, bias: np.ndarray | None, x_shape: Sequence[int], epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for one token ``x`` [..., in]; ``weight`` is [out, in]."""
    features, depth = weight.shape
    packed = pack_csr(weight, np.arange(depth))
    constants = (packed.values, packed.offsets, packed.pointers, bias_constant(bias, epilogue, features))
    out_shape = (*x_shape[:-1], features)
    with building("sparse_vector_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        values, offsets, pointers, biases = buffers.constants
        with T.parallel(features) as row:
            first = T.Bind(pointers[row])
            count = T.Bind(pointers[row + 1] - first)
            sums = registers(_SUMS, 1)
            for i in range(_SUMS):
                store(sums, i, biases[row] if i == 0 else T.float32(0), 1)
            with T.serial(count // _SUMS) as step:
                for i in range(_SUMS):
                    e = first + step * _SUMS + i
                    store(sums, i, sums[i] + values[e] * buffers.x[T.Cast("int32", offsets[e])], 1)
            with T.serial(count % _SUMS) as rest:
                e = T.Bind(first + count // _SUMS * _SUMS + rest)
                store(sums, 0, sums[0] + values[e] * buffers.x[T.Cast("int32", offsets[e])], 1)
            total = (sums[0] + sums[1]) + (sums[2] + sums[3])
            store_result(buffers, row, total, 1, 1, epilogue.activation)
    return Kernel(
        "sparse_vector_linear", emitter.function, constants, out_shape, note=f"csr matrix-vector, {packed.note}"
    )
