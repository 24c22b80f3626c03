"""Dense linear layer on few row-major tokens: a register block of tokens x output features over packed panels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.dense_blocked_linear import dense_blocked_linear, suits_blocks
from graphprune.backend.kernels.emit import arguments, building, load, store
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.register_block import Operand, choose_block
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.target import CompileTarget


def dense_linear(
    weight: np.ndarray,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of ``x @ weight.T`` for ``x`` [..., in] and ``weight`` [out, in]."""
    features, depth = weight.shape
    tokens = prod(x_shape[:-1])
    if suits_blocks(tokens, features, target, choice):
        return dense_blocked_linear(weight, bias, x_shape, epilogue, target, choice)
    block = choose_block(tokens, features, depth, target, choice.vectors)
    panels = pack_panels(weight, block.width)
    constants = (panels, bias_constant(bias, epilogue, features))
    out_shape = (*x_shape[:-1], features)
    token_tiles, lanes = -(-tokens // block.rows), block.lanes
    with building("dense_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        packed, biases = buffers.constants
        with shared_loop(len(panels) * token_tiles, target.cores) as task:
            panel = T.Bind(task // token_tiles)
            token = T.Bind(T.min(task % token_tiles * block.rows, tokens - block.rows))
            feature = T.Bind(T.min(panel * block.width, features - block.width))
            sums = block.allocate()
            for i in range(block.rows):
                for v in range(block.vectors):
                    store(sums, block.slot(i, v), load(biases, feature + v * lanes, lanes), lanes)
            wide = Operand(packed, T.Bind(panel * (depth * block.width)), block.width)
            block.multiply(sums, depth, wide, Operand(buffers.x, T.Bind(token * depth), 1, across=depth))
            for i in range(block.rows):
                for v in range(block.vectors):
                    index = (token + i) * features + feature + v * lanes
                    value = load(sums, block.slot(i, v), lanes)
                    store_result(buffers, index, value, lanes, lanes, epilogue.activation)
    note = f"dense tile {block.rows} tokens x {block.width} features"
    return Kernel("dense_linear", emitter.function, constants, out_shape, note=note)
