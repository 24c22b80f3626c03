"""Dense convolution: a register block of output channels x positions, over the planes that the sparse one reads too."""

from __future__ import annotations

from math import gcd

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.dense_gathered_conv2d import dense_gathered_conv2d, suits_gathering
from graphprune.backend.kernels.emit import arguments, building, load, splat, store
from graphprune.backend.kernels.epilogue import bias_constant, store_tile
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import planes_of
from graphprune.backend.kernels.register_block import RegisterBlock, most_rows
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile, choose_tile
from graphprune.backend.target import CompileTarget

_LINE_COST = 25.0  # of the first touch of one more cache line of a tile's input, in half cycles
_FAR_LINE_COST = 4.0  # of each later touch, if all of the tile's lines do not stay in the first-level cache
_NEAR_LINES = 384  # cache lines of a tile's input that do, beside weights and results: 24 KiB
_UNROLLED_TAPS = 9  # kernels up to 3x3 are unrolled; larger ones loop over a table of tap offsets


def dense_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    groups: int,
    epilogue: Epilogue,
    target: CompileTarget,
    choice: Choice,
) -> Kernel:
    """Return the kernel of a convolution with ``weight`` [out, in / groups, kh, kw] in ``groups`` groups."""
    rows, group_channels, kernel_height, kernel_width = weight.shape
    if groups == 1 and suits_gathering(geometry, rows, target, choice):
        return dense_gathered_conv2d(weight, bias, geometry, epilogue, target, choice)
    taps = kernel_height * kernel_width
    tile, block = _register_block(geometry, rows // groups, group_channels * taps, target, choice.vectors)
    matrices = weight.reshape(groups, rows // groups, group_channels * taps)
    panels = np.stack([pack_panels(matrix, block.rows) for matrix in matrices])
    offsets = geometry.reduction_offsets()[:taps].astype(np.int32)
    constants = (panels, offsets, bias_constant(bias, epilogue, rows))
    with building("dense_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = planes_of(buffers.x, geometry, target.cores)
        product = _Product(buffers, planes, geometry, panels.shape, rows, tile, block, epilogue.activation)
        product.emit(target.cores)
    note = f"dense tile {block.rows} channels x {tile.rows}x{tile.columns} positions"
    return Kernel("dense_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _register_block(
    geometry: ConvGeometry, group_rows: int, depth: int, target: CompileTarget, chosen: int | None
) -> tuple[Tile, RegisterBlock]:
    """Return the position tile and the block of output channels over it that take the least time."""
    best: tuple[float, Tile, RegisterBlock] | None = None
    for vectors in range(1, 5) if chosen is None else (chosen,):
        tile = choose_tile(geometry.rows, geometry.columns, geometry.lanes, vectors, overhead=1.0, reach=geometry.reach)
        used = len(tile.vectors)
        block = RegisterBlock(min(group_rows, most_rows(used, target.registers)), used, geometry.lanes)
        panels = -(-group_rows // block.rows)
        cost = tile.count * panels * block.cost(depth)
        if geometry.single_tap:
            lines = depth * _lines(tile.columns, geometry.channel_size)
            again = panels * _FAR_LINE_COST if lines > _NEAR_LINES else 0.0
            cost += tile.count * lines * (_LINE_COST + again)
        if best is None or cost < best[0]:
            best = cost, tile, block
    assert best is not None
    return best[1], best[2]


def _lines(columns: int, channel_size: int) -> float:
    """Return how many cache lines ``columns`` floats lie in, on the average over tiles and channels."""
    step = gcd(columns, channel_size, LINE_FLOATS)
    return (columns + LINE_FLOATS - step) / LINE_FLOATS


class _Product:
    """Emits the parallel loop over (sample, group, block of output channels, position tile)."""

    def __init__(
        self,
        buffers,
        planes,
        geometry: ConvGeometry,
        panel_shape: tuple[int, ...],
        rows: int,
        tile: Tile,
        block: RegisterBlock,
        activation: str,
    ):
        self.buffers, self.planes, self.geometry, self.tile, self.block = buffers, planes, geometry, tile, block
        self.panels, self.offsets, self.bias = buffers.constants
        self.groups, self.blocks, self.depth, _ = panel_shape
        self.rows, self.activation = rows, activation

    def emit(self, cores: int) -> None:
        panels, tiles = self.groups * self.blocks, self.tile.count
        # The smaller operand is the one to read again and again, from the cache, in the inner loop.
        weights_inside = self.rows * self.depth < self.geometry.sample_size and self.groups == 1
        with shared_loop(self.geometry.batch * panels * tiles, cores) as index:
            sample = T.Bind(index // (panels * tiles))
            rest = index % (panels * tiles)
            if weights_inside:
                self._one(sample, T.Bind(rest % panels), T.Bind(rest // panels))
            else:
                self._one(sample, T.Bind(rest // tiles), T.Bind(rest % tiles))

    def _one(self, sample, panel, position) -> None:
        """Emit one register block: output channels of ``panel`` at the tile number ``position``."""
        geometry, tile, block = self.geometry, self.tile, self.block
        group_rows = self.rows // self.groups
        plane = geometry.rows * geometry.columns
        group = T.Bind(panel // self.blocks)
        row = T.Bind(group * group_rows + T.min(panel % self.blocks * block.rows, group_rows - block.rows))
        y, x = tile.origin(position)
        channel = sample * geometry.channels + group * (geometry.channels // self.groups)
        start = T.Bind(channel * geometry.channel_size + y * geometry.pitch + x)
        sums = block.allocate()
        for i in range(block.rows):
            for v in range(block.vectors):
                store(sums, block.slot(i, v), splat(self.bias[row + i], block.lanes), block.lanes)
        self._accumulate(sums, panel * (self.depth * block.rows), start)
        target = T.Bind((sample * self.rows + row) * plane + y * geometry.columns + x)
        for i in range(block.rows):
            store_tile(
                self.buffers, sums, block.slot(i, 0), tile, target + i * plane, geometry.columns, self.activation
            )

    def _accumulate(self, sums, panel, start) -> None:
        geometry = self.geometry
        taps = geometry.kernel[0] * geometry.kernel[1]
        with T.serial(geometry.channels // self.groups) as channel:
            base = T.Bind(start + channel * geometry.channel_size)
            weights = T.Bind(panel + channel * (taps * self.block.rows))
            if taps <= _UNROLLED_TAPS:
                for tap in range(taps):
                    offset = geometry.tap_offset(*divmod(tap, geometry.kernel[1]))
                    self._step(sums, weights + tap * self.block.rows, base + offset)
            else:
                with T.serial(taps) as tap:
                    self._step(sums, weights + tap * self.block.rows, base + self.offsets[tap])

    def _step(self, sums, weights, base) -> None:
        pitch = self.geometry.pitch
        vectors = [
            load(self.planes, base + (row * pitch + column), self.block.lanes) for row, column in self.tile.vectors
        ]
        self.block.step(sums, vectors, [self.panels[weights + i] for i in range(self.block.rows)])
