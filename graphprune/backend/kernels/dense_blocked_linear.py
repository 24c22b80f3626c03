"""Dense linear layer on many tokens: blocks of the reduction whose weights stay in the first-level cache.

Tokens are copied together block by block; the block's weights of one panel of features stay in the first-level cache
while all tokens pass by. Sums wait in a workspace from one block to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_blocked_panels
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.emit import (
    Arguments,
    arguments,
    building,
    fetch_share,
    load,
    store,
    widths,
    workspace,
)
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.register_block import Operand, RegisterBlock, most_rows, reduction_block
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import row_chunks
from graphprune.backend.target import CompileTarget

_BLOCK_FLOATS = 4096  # weights of one reduction block take 16 KiB: half of a first-level cache
_LEAST_TOKENS = 8  # below which weights are read too seldom for a cache to matter
_CHUNK_PANELS = 4  # fewest panels of features that a thread copies its tokens for
_GROUP_TOKENS = 256  # most tokens of one task: their block of inputs fits a second-level cache


def suits_blocks(tokens: int, features: int, target: CompileTarget, choice: Choice) -> bool:
    """Say whether there are tokens and features enough for this kernel."""
    return tokens >= _LEAST_TOKENS and features >= (choice.vectors or 4) * target.lanes


def dense_blocked_linear(
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
    groups = -(-tokens // _GROUP_TOKENS)
    group = -(-tokens // groups)
    block = _register_block(group, features, target, choice.vectors)
    length = reduction_block(depth, (choice.block_floats or _BLOCK_FLOATS) // block.width)
    constants = (pack_blocked_panels(weight, block.width, length), bias_constant(bias, epilogue, features))
    out_shape = (*x_shape[:-1], features)
    with building("dense_linear") as emitter:
        buffers = arguments(x_shape, out_shape, constants, residual=epilogue.residual)
        product = _Product(buffers, (tokens, depth, features), group, length, block, epilogue.activation)
        product.emit(target.cores)
    note = f"dense tile {block.rows} tokens x {block.width} features, {-(-depth // length)} blocks"
    return Kernel("dense_linear", emitter.function, constants, out_shape, note=note)


def _register_block(tokens: int, features: int, target: CompileTarget, chosen: int | None) -> RegisterBlock:
    """Return the block of tokens x features that takes the least time."""
    candidates = [
        RegisterBlock(min(tokens, most_rows(vectors, target.registers)), vectors, target.lanes)
        for vectors in ((2, 3, 4) if chosen is None else (chosen,))
    ]
    return min(candidates, key=lambda b: -(-tokens // b.rows) * -(-features // b.width) * b.cost(1))


class _Product:
    """Emits the parallel loop over (group of tokens, chunk of panels of features)."""

    def __init__(
        self,
        buffers: Arguments,
        sizes: tuple[int, int, int],
        group: int,
        length: int,
        block: RegisterBlock,
        activation: str,
    ) -> None:
        self.buffers, self.block = buffers, block
        self.weights, self.bias = buffers.constants
        self.tokens, self.depth, self.features = sizes
        self.group, self.length, self.activation = group, length, activation
        self.tiles = -(-group // block.rows)
        self.panels = -(-self.features // block.width)

    def emit(self, cores: int) -> None:
        """Emit the whole product for ``cores`` threads."""
        block = self.block
        groups = -(-self.tokens // self.group)
        chunks = row_chunks(self.panels, groups, cores, granule=_CHUNK_PANELS)
        share = -(-self.panels // chunks)
        parts = -(-self.depth // self.length)
        last = self.depth - (parts - 1) * self.length
        with shared_loop(groups * chunks, cores) as task:
            token = T.Bind(T.min(task // chunks * self.group, self.tokens - self.group))
            first = T.Bind(task % chunks * share)
            count = T.Bind(T.min(share, self.panels - first))
            copied = workspace(self.tiles * block.rows * self.length)
            held = workspace(share * self.tiles * block.rows * block.width)
            if parts > 1:
                with T.serial(parts - 1) as part:
                    start = T.Bind(part * self.length)
                    self._copy(copied, token, start, self.length)
                    with T.serial(count) as step:
                        self._part(copied, held, step, first + step, token, start, self.length, last=False)
            self._copy(copied, token, self.depth - last, last)
            with T.serial(count) as step:
                self._part(copied, held, step, first + step, token, self.depth - last, last, last=True)

    def _origin(self, tile):
        """Return the first token of a tile, within its group."""
        return T.Bind(T.min(tile * self.block.rows, self.group - self.block.rows))

    def _copy(self, copied, token, start, length: int) -> None:
        """Emit ``copied[tile, i, k]``, the inputs of each tile's tokens for ``length`` steps from ``start`` on."""
        rows, lanes = self.block.rows, self.block.lanes
        with T.serial(self.tiles) as tile:
            origin = self._origin(tile)
            with T.serial(rows) as i:
                source = T.Bind((token + origin + i) * self.depth + start)
                target = T.Bind((tile * rows + i) * length)
                whole = length // lanes
                if whole:
                    with T.serial(whole) as v:
                        store(copied, target + v * lanes, load(self.buffers.x, source + v * lanes, lanes), lanes)
                for offset, width in widths(length % lanes, lanes):
                    at = whole * lanes + offset
                    store(copied, target + at, load(self.buffers.x, source + at, width), width)

    def _part(self, copied, held, slot, panel, token, start, length: int, *, last: bool) -> None:
        """Emit ``length`` steps of the reduction for all tokens of a panel; the last ones store the result."""
        block = self.block
        feature = T.Bind(T.min(panel * block.width, self.features - block.width))
        weights = T.Bind(start * (self.panels * block.width) + panel * (length * block.width))
        with T.serial(self.tiles) as tile:
            base = T.Bind((slot * self.tiles + tile) * (block.rows * block.width))
            sums = block.allocate()
            self._load_sums(sums, held, base, feature, start)
            inputs = T.Bind(tile * (block.rows * length))
            fetch_share(self.weights, weights + length * block.width, length * block.width, tile, self.tiles)
            narrow = Operand(copied, inputs, 1, across=length)
            block.multiply(sums, length, Operand(self.weights, weights, block.width), narrow)
            if last:
                self._store_result(sums, T.Bind(token + self._origin(tile)), feature)
            else:
                block.hold(sums, held, base)

    def _load_sums(self, sums, held, base, feature, start) -> None:
        """Emit the first value of a block's sums: the bias, or what the part before has left."""
        block, lanes = self.block, self.block.lanes

        def from_bias() -> None:
            for v in range(block.vectors):
                bias = T.Bind(load(self.bias, feature + v * lanes, lanes))
                for i in range(block.rows):
                    store(sums, block.slot(i, v), bias, lanes)

        def from_held() -> None:
            block.resume(sums, held, base)

        if isinstance(start, int):
            (from_bias if start == 0 else from_held)()
            return
        with T.If(start == 0):
            with T.Then():
                from_bias()
            with T.Else():
                from_held()

    def _store_result(self, sums, token, feature) -> None:
        block, lanes = self.block, self.block.lanes
        for i in range(block.rows):
            for v in range(block.vectors):
                index = (token + i) * self.features + feature + v * lanes
                store_result(self.buffers, index, load(sums, block.slot(i, v), lanes), lanes, lanes, self.activation)
