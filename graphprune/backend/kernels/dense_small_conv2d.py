"""Dense k x k convolution to small planes: register blocks of positions x output channels over an unfolded input.

Where planes are small (14x14, 7x7 at the end of most networks), vectors along their rows would be padding in good
part. Here the vectors run along output channels, and positions, gathered once into an unfolded matrix, are the scalars;
the result is transposed in registers when it is stored. The reduction is cut into blocks whose weights stay in the
first-level cache while all positions pass by.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.emit import Arguments, arguments, building, load, store, unrolled, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.register_block import RegisterBlock, most_rows
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_LARGEST_PLANE = 256  # output positions of one sample up to which this kernel wins over tiles along the rows
_VECTORS = 2  # vectors of output channels in a block
_BLOCK_FLOATS = 4096  # weights of one reduction block take 16 KiB: half of a first-level cache


def suits_small_planes(geometry: ConvGeometry, out_channels: int, target: CompileTarget) -> bool:
    """Say whether planes are small and the layer is large enough that unfolding its input pays."""
    small = geometry.out_height * geometry.out_width <= _LARGEST_PLANE and not geometry.single_tap
    return small and takes_small_planes(geometry, out_channels, target) and out_channels >= 4 * _VECTORS * target.lanes


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
    block = RegisterBlock(most_rows(vectors, target.registers), vectors, target.lanes)
    reduction_block = max(1, (choice.block_floats or _BLOCK_FLOATS) // block.width)
    panels = pack_panels(weight.reshape(rows, -1), block.width)
    constants = (
        panels,
        geometry.reduction_offsets().astype(np.int32),
        _position_offsets(geometry, block.rows),
        bias_constant(bias, epilogue, rows),
    )
    with building("dense_small_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = planes_of(buffers.x, geometry)
        _Product(buffers, geometry, panels.shape, rows, block, epilogue.activation).emit(planes, reduction_block)
    note = f"dense tile {block.rows} positions x {block.width} channels"
    return Kernel("dense_small_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _position_offsets(geometry: ConvGeometry, block_rows: int) -> np.ndarray:
    """Return where each output position's first tap lies in the planes: int32, whole blocks, the last one repeated."""
    sample, y, x = np.indices((geometry.batch, geometry.out_height, geometry.out_width)).reshape(3, -1)
    offsets = sample * geometry.sample_size + y * geometry.pitch + x
    padding = -len(offsets) % block_rows
    return np.pad(offsets, (0, padding), mode="edge").astype(np.int32)


class _Product:
    """Emits the unfolding of the input and the parallel loop over panels of output channels."""

    def __init__(
        self,
        buffers: Arguments,
        geometry: ConvGeometry,
        panel_shape: tuple[int, ...],
        rows: int,
        block: RegisterBlock,
        activation: str,
    ) -> None:
        self.buffers, self.geometry, self.block = buffers, geometry, block
        self.panels, self.reduction, self.positions, self.bias = buffers.constants
        self.panel_count, self.depth, _ = panel_shape
        self.rows, self.activation = rows, activation
        self.plane = geometry.out_height * geometry.out_width
        self.tiles = -(-geometry.batch * self.plane // block.rows)

    def emit(self, planes, reduction_block: int) -> None:
        unfolded = workspace(self.tiles * self.depth * self.block.rows)
        self._unfold(planes, unfolded)
        with T.parallel(self.panel_count) as panel:
            feature = T.Bind(T.min(panel * self.block.width, self.rows - self.block.width))
            held = workspace(self.tiles * self.block.rows * self.block.width)
            self._start(held, feature)
            whole, rest = divmod(self.depth, reduction_block)
            if whole:
                with T.serial(whole) as step, T.serial(self.tiles) as tile:
                    self._block(unfolded, held, panel, tile, step * reduction_block, reduction_block)
            if rest:
                with T.serial(self.tiles) as tile:
                    self._block(unfolded, held, panel, tile, whole * reduction_block, rest)
            self._store(held, feature)

    def _unfold(self, planes, unfolded) -> None:
        """Emit ``unfolded[tile, k, i] = planes[reduction[k] + positions[tile * rows + i]]``."""
        count = self.block.rows
        with T.parallel(self.tiles) as tile:
            starts = [T.Bind(self.positions[tile * count + i]) for i in range(count)]
            with T.serial(self.depth) as k:
                tap = T.Bind(self.reduction[k])
                for i, start in enumerate(starts):
                    store(unfolded, (tile * self.depth + k) * count + i, planes[tap + start], 1)

    def _start(self, held, feature) -> None:
        """Emit the sums' first value, the bias, at every position."""
        block, lanes = self.block, self.block.lanes
        biases = [T.Bind(load(self.bias, feature + v * lanes, lanes)) for v in range(block.vectors)]
        with T.serial(self.tiles * block.rows) as position:
            for v, bias in enumerate(biases):
                store(held, position * block.width + v * lanes, bias, lanes)

    def _block(self, unfolded, held, panel, tile, start, length: int) -> None:
        """Emit one register block over ``length`` steps of the reduction from ``start`` on, added to ``held``."""
        block, lanes = self.block, self.block.lanes
        sums = block.allocate()
        base = T.Bind(tile * (block.rows * block.width))
        for slot in range(0, block.rows * block.width, lanes):
            store(sums, slot, load(held, base + slot, lanes), lanes)
        weights, inputs = T.Bind(panel * self.depth + start), T.Bind(tile * self.depth + start)

        def step(k) -> None:
            wide, narrow = T.Bind((weights + k) * block.width), T.Bind((inputs + k) * block.rows)
            vectors = [load(self.panels, wide + v * lanes, lanes) for v in range(block.vectors)]
            block.step(sums, vectors, [unfolded[narrow + i] for i in range(block.rows)])

        unrolled(length, step)
        for slot in range(0, block.rows * block.width, lanes):
            store(held, base + slot, load(sums, slot, lanes), lanes)

    def _store(self, held, feature) -> None:
        """Emit the transposition of ``held`` [positions, channels of the panel] into NCHW, with the epilogue."""
        lanes, width = self.block.lanes, self.block.width
        across = -(-self.plane // lanes)
        with T.serial(self.geometry.batch * across) as step:
            sample = T.Bind(step // across)
            position = T.Bind(T.min(step % across * lanes, self.plane - lanes))
            for group in range(0, width, lanes):
                base = (sample * self.plane + position) * width + group
                for j, vector in enumerate(transposed([load(held, base + i * width, lanes) for i in range(lanes)])):
                    index = (sample * self.rows + feature + (group + j)) * self.plane + position
                    store_result(self.buffers, index, vector, lanes, lanes, self.activation)
