"""Dense convolution to small planes: register blocks of positions x output channels over an unfolded input.

Where planes are small (14x14, 7x7 at the end of most networks), vectors along their rows would be padding in good
part. Here the vectors run along output channels, and positions, copied together into an unfolded matrix, are the
scalars; the result is transposed in registers when it is stored. The reduction is cut into blocks: a block's weights of
one panel of channels stay in the first-level cache while all positions pass by, its input in the second-level one.
"""

from __future__ import annotations

import itertools

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
    workspace,
)
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.position_copy import PositionCopy
from graphprune.backend.kernels.register_block import Operand, RegisterBlock, most_rows, reduction_block
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_LARGEST_PLANE = 256  # output positions of one sample up to which this kernel wins over tiles along the rows
_VECTORS = 2  # vectors of output channels in a block
_BLOCK_FLOATS = 4096  # weights of one reduction block take 16 KiB: half of a first-level cache
_UNFOLDED_TOGETHER = 32  # steps of the reduction whose input stays in the first-level cache while it is unfolded
_LEAST_DEPTH = 128  # steps of a reduction below which storing the result takes too large a part of the time
_CHUNK_PANELS = 4  # panels of channels from which on unfolding the input for them costs a thread little
_LEAST_WEIGHTS = 16384  # weights below which unfolding the input takes too large a part of the time
_CHUNK_COST = 0.03  # of one more chunk of panels, as a share of the whole
_GROUP_COST = 0.05  # of one more group of tiles
_GROUP_TILES = 8  # tiles of positions from which on reading the weights for them costs a thread little
_LEAST_PANELS = 2  # the same where threads would otherwise have nothing to do


def suits_small_planes(geometry: ConvGeometry, out_channels: int, target: CompileTarget) -> bool:
    """Say whether planes are small and the layer is large enough that unfolding its input pays."""
    small = geometry.out_height * geometry.out_width <= _LARGEST_PLANE
    deep = geometry.channels * geometry.kernel[0] * geometry.kernel[1] >= _LEAST_DEPTH
    wide = out_channels >= _CHUNK_PANELS * _VECTORS * target.lanes
    heavy = out_channels * geometry.channels * geometry.kernel[0] * geometry.kernel[1] >= _LEAST_WEIGHTS
    return small and deep and wide and heavy and takes_small_planes(geometry, out_channels, target)


def takes_small_planes(
    geometry: ConvGeometry, out_channels: int, target: CompileTarget, vectors: int = _VECTORS
) -> bool:
    """Say whether the kernel can compute the layer at all: planes of a vector, channels for a block of ``vectors``."""
    return geometry.out_height * geometry.out_width >= target.lanes and out_channels >= vectors * target.lanes


def dense_small_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of an ungrouped convolution with ``weight`` [out, in, kh, kw] whose output planes are small."""
    rows = weight.shape[0]
    vectors = choice.vectors or _VECTORS
    if not takes_small_planes(geometry, rows, target, vectors):
        raise BackendError(f"{rows} channels or the planes are too small for blocks of {vectors} vectors")
    matrix = weight.reshape(rows, -1)
    plane = geometry.out_height * geometry.out_width
    block = _register_block(plane, vectors, target)
    length = reduction_block(matrix.shape[1], (choice.block_floats or _BLOCK_FLOATS) // block.width)
    copy = PositionCopy(geometry, np.arange(0, plane, block.rows), block.rows)
    constants = (
        pack_blocked_panels(matrix, block.width, length),
        geometry.reduction_offsets().astype(np.int32),
        copy.table,
        bias_constant(bias, epilogue, rows),
    )
    with building("dense_small_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = planes_of(buffers.x, geometry, target.cores, copy.slack)
        activation, cores = epilogue.activation, target.cores
        product = _Product(buffers, planes, geometry, copy, matrix.shape, length, block, activation, cores)
        product.emit(cores)
    blocks = -(-matrix.shape[1] // length)
    note = f"dense tile {block.rows} positions x {block.width} channels, {blocks} blocks"
    return Kernel("dense_small_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _register_block(plane: int, vectors: int, target: CompileTarget) -> RegisterBlock:
    """Return the block of positions x channels that walks a plane at least cost."""
    most = min(plane, most_rows(vectors, target.registers))
    candidates = [RegisterBlock(rows, vectors, target.lanes) for rows in range(max(1, most - 2), most + 1)]
    return min(candidates, key=lambda block: -(-plane // block.rows) * block.cost(1))


class _Product:
    """Emits the parallel loop over (sample, chunk of panels of output channels)."""

    def __init__(
        self,
        buffers: Arguments,
        planes,
        geometry: ConvGeometry,
        copy: PositionCopy,
        matrix_shape: tuple[int, ...],
        length: int,
        block: RegisterBlock,
        activation: str,
        cores: int,
    ) -> None:
        self.buffers, self.planes, self.geometry, self.copy, self.block = buffers, planes, geometry, copy, block
        self.weights, self.taps, self.table, self.bias = buffers.constants
        self.rows, self.depth = matrix_shape
        self.length, self.activation = length, activation
        self.plane = geometry.out_height * geometry.out_width
        self.panels = -(-self.rows // block.width)
        self.groups, self.chunks = _cut(len(copy.table), self.panels, geometry.batch, cores)
        self.tiles = -(-len(copy.table) // self.groups)  # of one group; the last one is moved back

    def emit(self, cores: int) -> None:
        """Emit the whole product for ``cores`` threads."""
        block, chunks = self.block, self.chunks
        share = -(-self.panels // chunks)
        whole, rest = divmod(self.depth, self.length)
        with shared_loop(self.geometry.batch * self.groups * chunks, cores) as task:
            sample = T.Bind(task // (self.groups * chunks))
            group = T.Bind(task // chunks % self.groups * self.tiles)
            tile = T.Bind(T.min(group, len(self.copy.table) - self.tiles))
            first = T.Bind(task % chunks * share)
            count = T.Bind(T.min(share, self.panels - first))
            origin = T.Bind(sample * self.geometry.sample_size)
            unfolded = workspace(self.tiles * self._unfolded_size(self.length) + self.copy.slack)
            held = workspace((share if self.depth > self.length else 1) * self.tiles * block.rows * block.width)
            if self.depth == self.length:
                self._unfold(unfolded, origin, tile, 0, self.depth)
                with T.serial(count) as step:
                    panel = T.Bind(first + step)
                    self._start(held, 0, panel)
                    self._part(unfolded, held, 0, panel, 0, self.depth)
                    self._store(held, 0, panel, sample, tile)
                return
            with T.serial(count) as step:
                self._start(held, step, T.Bind(first + step))
            with T.serial(whole) as part:
                start = T.Bind(part * self.length)
                self._unfold(unfolded, origin, tile, start, self.length)
                with T.serial(count) as step:
                    self._part(unfolded, held, step, T.Bind(first + step), start, self.length)
            if rest:
                self._unfold(unfolded, origin, tile, whole * self.length, rest)
                with T.serial(count) as step:
                    self._part(unfolded, held, step, T.Bind(first + step), whole * self.length, rest)
            with T.serial(count) as step:
                self._store(held, step, T.Bind(first + step), sample, tile)

    def _unfold(self, unfolded, origin, first_tile, start, length: int) -> None:
        """Emit ``unfolded[tile, k, i]``, the inputs of positions of tiles for ``length`` steps of the reduction."""
        with T.serial(-(-length // _UNFOLDED_TOGETHER)) as chunk, T.serial(self.tiles) as tile:
            done = T.Bind(chunk * _UNFOLDED_TOGETHER)
            count = T.Bind(T.min(length - done, _UNFOLDED_TOGETHER))
            base = T.Bind(tile * self._unfolded_size(length) + (self.copy.slack + done * self.block.rows))
            run = T.Bind(first_tile + tile)
            self.copy.emit(self.planes, origin, self.table, run, self.taps, start + done, count, unfolded, base)

    def _unfolded_size(self, length: int) -> int:
        """Return the floats from one tile of the unfolded input to the next, with what a copy writes beside its own."""
        return length * self.block.rows + self.copy.slack

    def _feature(self, panel):
        return T.Bind(T.min(panel * self.block.width, self.rows - self.block.width))

    def _start(self, held, slot, panel) -> None:
        """Emit the first value of a panel's sums, the bias, at every position."""
        block, lanes = self.block, self.block.lanes
        feature = self._feature(panel)
        biases = [T.Bind(load(self.bias, feature + v * lanes, lanes)) for v in range(block.vectors)]
        base = T.Bind(slot * (self.tiles * block.rows * block.width))
        with T.serial(self.tiles * block.rows) as position:
            for v, bias in enumerate(biases):
                store(held, base + position * block.width + v * lanes, bias, lanes)

    def _part(self, unfolded, held, slot, panel, start, length: int) -> None:
        """Emit ``length`` steps of the reduction from ``start`` on, for all positions of a panel."""
        block = self.block
        weights = T.Bind(start * (self.panels * block.width) + panel * (length * block.width))
        with T.serial(self.tiles) as tile:
            base = T.Bind((slot * self.tiles + tile) * (block.rows * block.width))
            sums = block.allocate()
            block.resume(sums, held, base)
            inputs = T.Bind(tile * self._unfolded_size(length) + self.copy.slack)
            fetch_share(self.weights, weights + length * block.width, length * block.width, tile, self.tiles)
            narrow = Operand(unfolded, inputs, block.rows)
            block.multiply(sums, length, Operand(self.weights, weights, block.width), narrow)
            block.hold(sums, held, base)

    def _store(self, held, slot, panel, sample, first_tile) -> None:
        """Emit the transposition of a panel's sums [positions, channels] into NCHW, with the epilogue."""
        lanes, width = self.block.lanes, self.block.width
        feature = self._feature(panel)
        start = T.Bind(slot * (self.tiles * self.block.rows * width))
        begin = T.Bind(first_tile * self.block.rows)
        size = T.Bind(T.min(self.plane - begin, self.tiles * self.block.rows))
        with T.serial((size + lanes - 1) // lanes) as step:
            position = T.Bind(T.min(step * lanes, size - lanes))
            for group in range(0, width, lanes):
                base = T.Bind(start + position * width + group)
                for j, vector in enumerate(transposed([load(held, base + i * width, lanes) for i in range(lanes)])):
                    index = (sample * self.rows + feature + (group + j)) * self.plane + begin + position
                    store_result(self.buffers, index, vector, lanes, lanes, self.activation)


def _cut(tiles: int, panels: int, batch: int, cores: int) -> tuple[int, int]:
    """Return into how many groups to cut the tiles of positions, and into how many chunks the panels of channels.

    Threads get equal parts, or nearly so; every chunk unfolds its input again, every group reads the weights again.
    """

    def cost(cut: tuple[int, int]) -> float:
        groups, chunks = cut
        work = -(-tiles // groups) * -(-panels // chunks)
        busiest = -(-batch * groups * chunks // cores) * work
        return busiest * cores * (1 + _CHUNK_COST * (chunks - 1) + _GROUP_COST * (groups - 1))

    granule = min(_CHUNK_PANELS, max(_LEAST_PANELS, batch * panels // cores))
    most_chunks = max(1, min(panels // granule, 4 * cores))
    most_groups = max(1, min(tiles // _GROUP_TILES, cores))
    return min(itertools.product(range(1, most_groups + 1), range(1, most_chunks + 1)), key=cost)
