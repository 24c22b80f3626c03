"""Attention in one kernel: scores, softmax and the weighted sum, a block of queries at a time, all in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.contract import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, splat, store, workspace
from graphprune.backend.kernels.register_block import Operand, RegisterBlock, choose_block
from graphprune.backend.kernels.rows import Mask, broadcast_strides, weigh_row
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_SCORES = 1 << 14  # floats of the scores of one block of queries: with the keys, they stay in a second-level cache
_KEYS = 1 << 16  # floats of the keys that one block of queries copies
_FEW_QUERIES = 16  # below which copying the keys for each block of queries costs too much


@dataclass(frozen=True)
class _Shape:
    """Sizes of an attention: matrices of queries, and ``group`` of them for each matrix of keys and values."""

    samples: int
    group: int
    queries: int
    keys: int
    depth: int
    width: int

    @property
    def block(self) -> int:
        """How many queries one task answers."""
        blocks = -(-self.queries // max(1, _SCORES // self.keys))
        return -(-self.queries // blocks)

    @property
    def blocks(self) -> int:
        """Into how many tasks the queries of one matrix are cut; the last two may overlap."""
        return -(-self.queries // self.block)


def attention(
    q_shape: Sequence[int],
    k_shape: Sequence[int],
    v_shape: Sequence[int],
    mask_shape: tuple[int, ...] | None,
    target: CompileTarget,
    *,
    scale: float,
    causal: bool = False,
) -> Kernel:
    """Return the kernel of ``softmax(q @ k.T * scale + mask) @ v``.

    q is [..., m, d], k [..., n, d] and v [..., n, e]; batch axes are equal, but the last one of k and v may be a
    divisor of that of q: then each head of them serves as many neighbours of q (grouped queries). Buffers: q, k, v,
    the mask if there is one (float32, broadcast against [..., m, n]), out [..., m, e]. With ``causal``, query i sees
    the first i + 1 keys only. Rows that the mask closes altogether come out as zeros.

    Raises:
        BackendError: if the batch axes do not fit, or the keys are too many to stay in the cache.
    """
    shape = _sizes(q_shape, k_shape, v_shape)
    score_shape = (*q_shape[:-1], shape.keys)
    strides = None if mask_shape is None else broadcast_strides(mask_shape, score_shape)
    inner = choose_block(shape.block, shape.keys, shape.depth, target)
    outer = choose_block(shape.block, shape.width, shape.keys, target)
    out_shape = (*q_shape[:-1], shape.width)
    with building("attention") as emitter:
        shapes = [q_shape, k_shape, v_shape, *([] if mask_shape is None else [mask_shape]), out_shape]
        declared = [T.arg(f"b{i}", T.buffer(tuple(sizes), "float32", layout=None)) for i, sizes in enumerate(shapes)]
        q, k, v, *masks, out = (flat_view(buffer) for buffer in declared)
        mask = None if strides is None else Mask(masks[0], strides, score_shape)
        with shared_loop(shape.samples * shape.blocks, target.cores) as task:
            sample = T.Bind(task // shape.blocks)
            pair = T.Bind(sample // shape.group)
            query = T.Bind(T.min(task % shape.blocks * shape.block, shape.queries - shape.block))
            row = T.Bind(sample * shape.queries + query)
            packed = workspace(-(-shape.keys // inner.width) * shape.depth * inner.width)
            scores, factors = workspace(shape.block * shape.keys), workspace(shape.block)
            _pack_keys(k, pair * (shape.keys * shape.depth), packed, shape, inner)
            _score(q, row * shape.depth, packed, scores, shape, inner, scale)
            with T.serial(shape.block) as i:
                start = T.Bind(i * shape.keys)
                position = query + i if causal else None
                factor = weigh_row(
                    scores, start, scores, start, shape.keys, target, row=row + i, position=position, mask=mask
                )
                store(factors, i, factor, 1)
            _sum_values(scores, factors, v, pair * (shape.keys * shape.width), out, row * shape.width, shape, outer)
    note = f"{shape.samples * shape.blocks} blocks of {shape.block} queries, {shape.keys} keys"
    return Kernel("attention", emitter.function, (), out_shape, note=note)


def _sizes(q_shape: Sequence[int], k_shape: Sequence[int], v_shape: Sequence[int]) -> _Shape:
    *q_batch, queries, depth = q_shape
    *k_batch, keys, key_depth = k_shape
    *v_batch, values, width = v_shape
    heads = (q_batch[-1], k_batch[-1]) if q_batch and k_batch else (1, 1)
    if k_batch != v_batch or q_batch[:-1] != k_batch[:-1] or heads[0] % heads[1] or bool(q_batch) != bool(k_batch):
        raise BackendError(f"attention broadcasts over batch axes: {(*q_shape,)}, {(*k_shape,)}, {(*v_shape,)}")
    if (depth, keys) != (key_depth, values):
        raise BackendError(f"attention of {(*q_shape,)}, {(*k_shape,)}, {(*v_shape,)}: sizes do not fit")
    shape = _Shape(prod(q_batch), heads[0] // heads[1], queries, keys, depth, width)
    if keys * depth > _KEYS or (shape.block < _FEW_QUERIES and shape.block < queries):
        raise BackendError(f"{keys} keys of {depth} are too many for attention in one kernel")
    return shape


def _tiles(block: RegisterBlock, rows: int, columns: int, body: Callable[[Any, Any, Any], None]) -> None:
    """Emit ``body(row, column, panel)`` for each block of a ``rows x columns`` result; the last ones overlap."""
    with T.serial(-(-columns // block.width)) as panel:
        column = T.Bind(T.min(panel * block.width, columns - block.width))
        with T.serial(-(-rows // block.rows)) as tile:
            body(T.Bind(T.min(tile * block.rows, rows - block.rows)), column, panel)


def _pack_keys(k: tirx.Buffer, start: Any, packed: tirx.Buffer, shape: _Shape, block: RegisterBlock) -> None:
    """Emit the transposition of keys to panels ``packed[panel, depth, width]``, as the product reads them."""
    lanes = block.lanes
    while lanes > shape.depth:
        lanes //= 2
    with T.serial(-(-shape.keys // block.width)) as panel:
        key = T.Bind(T.min(panel * block.width, shape.keys - block.width))
        with T.serial(-(-shape.depth // lanes)) as step:
            d = T.Bind(T.min(step * lanes, shape.depth - lanes))
            for across in range(0, block.width, lanes):
                rows = [load(k, start + (key + across + i) * shape.depth + d, lanes) for i in range(lanes)]
                for j, vector in enumerate(transposed(rows)):
                    place = (panel * shape.depth + d + j) * block.width + across
                    store(packed, place, vector, lanes)


def _score(
    q: tirx.Buffer,
    start: Any,
    packed: tirx.Buffer,
    scores: tirx.Buffer,
    shape: _Shape,
    block: RegisterBlock,
    scale: float,
) -> None:
    """Emit ``scores = q @ k.T * scale``."""

    def tile(row: Any, column: Any, panel: Any) -> None:
        sums = block.allocate()
        block.clear(sums)
        wide = Operand(packed, T.Bind(panel * (shape.depth * block.width)), block.width)
        narrow = Operand(q, T.Bind(start + row * shape.depth), 1, across=shape.depth)
        block.multiply(sums, shape.depth, wide, narrow)
        for i in range(block.rows):
            for v in range(block.vectors):
                value = load(sums, block.slot(i, v), block.lanes) * splat(scale, block.lanes)
                store(scores, (row + i) * shape.keys + column + v * block.lanes, value, block.lanes)

    _tiles(block, shape.block, shape.keys, tile)


def _sum_values(
    scores: tirx.Buffer,
    factors: tirx.Buffer,
    v: tirx.Buffer,
    v_start: Any,
    out: tirx.Buffer,
    out_start: Any,
    shape: _Shape,
    block: RegisterBlock,
) -> None:
    """Emit ``out = scores @ v``, each row times its factor."""

    def tile(row: Any, column: Any, panel: Any) -> None:
        sums = block.allocate()
        block.clear(sums)
        narrow = Operand(scores, T.Bind(row * shape.keys), 1, across=shape.keys)
        block.multiply(sums, shape.keys, Operand(v, T.Bind(v_start + column), shape.width), narrow)
        for i in range(block.rows):
            factor = T.Bind(splat(factors[row + i], block.lanes))
            for j in range(block.vectors):
                place = out_start + (row + i) * shape.width + column + j * block.lanes
                store(out, place, load(sums, block.slot(i, j), block.lanes) * factor, block.lanes)

    _tiles(block, shape.block, shape.width, tile)
