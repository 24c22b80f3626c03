"""Dense convolution: a register block of output channels x positions, over the same shifted planes as the sparse one."""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import arguments, building, load, registers, splat, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.planes import fill_planes
from graphprune.backend.kernels.tiling import Tile, choose_tile
from graphprune.backend.target import CompileTarget

_UNROLLED_TAPS = 9  # kernels up to 3x3 are unrolled; larger ones loop over a table of tap offsets


def dense_conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    groups: int,
    epilogue: Epilogue,
    target: CompileTarget,
) -> Kernel:
    """Return the kernel of a convolution with ``weight`` [out, in / groups, kh, kw] in ``groups`` groups."""
    rows, group_channels, kernel_height, kernel_width = weight.shape
    taps = kernel_height * kernel_width
    tile, block = _register_block(geometry, rows // groups, target)
    panels = np.stack([pack_panels(part, block) for part in weight.reshape(groups, rows // groups, group_channels * taps)])
    offsets = geometry.reduction_offsets()[:taps].astype(np.int32)
    constants = (panels, offsets, bias_constant(bias, epilogue, rows))
    with building("dense_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        planes = buffers.x
        if not geometry.direct:
            planes = workspace(geometry.workspace_size)
            fill_planes(buffers.x, planes, geometry)
        _Product(buffers, planes, geometry, panels.shape, rows, tile, epilogue.activation).emit()
    note = f"dense tile {block} channels x {tile.rows}x{tile.columns} positions"
    return Kernel("dense_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _register_block(geometry: ConvGeometry, group_rows: int, target: CompileTarget) -> tuple[Tile, int]:
    """Return the position tile and the number of output channels whose sums fill the registers best."""
    best: tuple[float, Tile, int] | None = None
    for vectors in range(1, 5):
        tile = choose_tile(geometry.rows, geometry.columns, geometry.lanes, vectors, overhead=1.0)
        used = len(tile.vectors)
        block = min(group_rows, (target.registers - used - 1) // used)
        # Per step: `used * block` multiply-adds, two a cycle, against `used + block` loads, also two a cycle.
        steps = tile.count * -(-group_rows // block)
        cost = steps * max(used * block, used + block, 8)
        if best is None or cost < best[0]:
            best = cost, tile, block
    assert best is not None
    return best[1], best[2]


class _Product:
    """Emits the parallel loop over (sample, group, block of output channels, position tile)."""

    def __init__(self, buffers, planes, geometry: ConvGeometry, panel_shape, rows: int, tile: Tile, activation: str):
        self.buffers, self.planes, self.geometry, self.tile = buffers, planes, geometry, tile
        self.panels, self.offsets, self.bias = buffers.constants
        self.groups, self.blocks, self.depth, self.block = panel_shape
        self.rows, self.activation, self.lanes = rows, activation, tile.lanes
        self.vectors = tile.vectors

    def emit(self) -> None:
        geometry, tile = self.geometry, self.tile
        group_rows = self.rows // self.groups
        per_sample = self.groups * self.blocks * tile.count
        plane = geometry.rows * geometry.columns
        with T.parallel(geometry.batch * per_sample) as task:
            sample = T.Bind(task // per_sample)
            panel, position = self._locate(task % per_sample)
            group = T.Bind(panel // self.blocks)
            row = T.Bind(group * group_rows + T.min(panel % self.blocks * self.block, group_rows - self.block))
            y, x = tile.origin(position)
            channel = sample * geometry.channels + group * (geometry.channels // self.groups)
            start = T.Bind(channel * geometry.channel_size + y * geometry.pitch + x)
            sums = registers(self.block * len(self.vectors), self.lanes)
            for i in range(self.block):
                for v in range(len(self.vectors)):
                    store(sums, self._slot(i, v), splat(self.bias[row + i], self.lanes), self.lanes)
            self._accumulate(sums, panel * (self.depth * self.block), start)
            target = T.Bind((sample * self.rows + row) * plane + y * geometry.columns + x)
            for i in range(self.block):
                for v, (tile_row, column) in enumerate(self.vectors):
                    index = target + (i * plane + tile_row * geometry.columns + column)
                    value = load(sums, self._slot(i, v), self.lanes)
                    store_result(
                        self.buffers.out, self.buffers.residual, index, value, self.lanes, tile.stored_lanes, self.activation
                    )

    def _locate(self, task):
        """Return (panel, position tile), ordered so that the smaller operand is the one that is read again and again."""
        panels = self.groups * self.blocks
        panel_floats = self.rows * self.depth
        plane_floats = self.geometry.channels * self.geometry.channel_size
        if panel_floats < plane_floats and self.groups == 1:
            return T.Bind(task % panels), T.Bind(task // panels)
        return T.Bind(task // self.tile.count), T.Bind(task % self.tile.count)

    def _slot(self, i: int, v: int) -> int:
        return (i * len(self.vectors) + v) * self.lanes

    def _accumulate(self, sums, panel, start) -> None:
        geometry = self.geometry
        taps = geometry.kernel[0] * geometry.kernel[1]
        with T.serial(geometry.channels // self.groups) as channel:
            base = T.Bind(start + channel * geometry.channel_size)
            weights = T.Bind(panel + channel * (taps * self.block))
            if taps <= _UNROLLED_TAPS:
                for tap in range(taps):
                    offset = geometry.tap_offset(*divmod(tap, geometry.kernel[1]))
                    self._step(sums, weights + tap * self.block, base + offset)
            else:
                with T.serial(taps) as tap:
                    self._step(sums, weights + tap * self.block, base + self.offsets[tap])

    def _step(self, sums, weights, base) -> None:
        inputs = [
            T.Bind(load(self.planes, base + (row * self.geometry.pitch + column), self.lanes))
            for row, column in self.vectors
        ]
        for i in range(self.block):
            weight = T.Bind(splat(self.panels[weights + i], self.lanes))
            for v, value in enumerate(inputs):
                slot = self._slot(i, v)
                store(sums, slot, load(sums, slot, self.lanes) + weight * value, self.lanes)
