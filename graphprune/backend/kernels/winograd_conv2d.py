"""Dense convolution by Winograd's algorithm: tiles of outputs from products at a few points of rows and columns.

Each tile's input is transformed to its values at some points, weights were transformed when the kernel was made, and
every point is a matrix product of its own: [tiles, channels] x [channels, output channels]. A 3x3 convolution takes 36
products for a tile of 4x4 instead of 144. Vectors run along channels in all of it: the input is transposed in registers
when it is read, the output when it is stored, so that no tile size wastes lanes. Threads share each of the three steps.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.contract import Epilogue, Kernel
from graphprune.backend.kernels.emit import (
    Arguments,
    arguments,
    building,
    fetch_share,
    load,
    registers,
    splat,
    store,
    workspace,
)
from graphprune.backend.kernels.epilogue import bias_constant, store_result
from graphprune.backend.kernels.minimal_filtering import combined
from graphprune.backend.kernels.register_block import Operand
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import Tile, row_chunks
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.kernels.winograd_plan import WinogradPlan
from graphprune.backend.target import CompileTarget


def winograd_conv2d(
    weight: np.ndarray, bias: np.ndarray | None, plan: WinogradPlan, epilogue: Epilogue, target: CompileTarget
) -> Kernel:
    """Return the kernel of an ungrouped convolution with ``weight`` [out, in, kh, kw] as ``plan`` says."""
    geometry, rows = plan.geometry, plan.out_channels
    constants = (_packed_weight(weight, plan), bias_constant(bias, epilogue, rows))
    with building("winograd_conv2d") as emitter:
        buffers = arguments(geometry.x_shape, geometry.out_shape(rows), constants, residual=epilogue.residual)
        _Winograd(buffers, plan, epilogue.activation).emit(target.cores)
    tile = f"{plan.vertical.outputs}x{plan.horizontal.outputs}"
    note = f"Winograd tile {tile}, {plan.block.rows} tiles x {plan.block.width} channels"
    return Kernel("winograd_conv2d", emitter.function, constants, geometry.out_shape(rows), note=note)


def _packed_weight(weight: np.ndarray, plan: WinogradPlan) -> np.ndarray:
    """Return the transformed weight, float32 [points, panels, channels, width]."""
    rows, columns = plan.geometry.stride
    phases = np.zeros((plan.out_channels, len(plan.phases), weight.shape[1], plan.vertical.taps, plan.horizontal.taps))
    for i, (row, column) in enumerate(plan.phases):
        share = weight[:, :, row::rows, column::columns]
        phases[:, i, :, : share.shape[2], : share.shape[3]] = share
    taps = phases.reshape(plan.out_channels, plan.depth, plan.vertical.taps, plan.horizontal.taps)
    # In float64, so that only one rounding is added.
    transforms = plan.vertical.tap_matrix, plan.horizontal.tap_matrix
    transformed = np.einsum("ar,bs,oirs->aboi", *transforms, taps, optimize=True)
    matrices = transformed.reshape(plan.points, plan.out_channels, plan.depth)
    padded = np.pad(matrices, ((0, 0), (0, plan.panels * plan.block.width - plan.out_channels), (0, 0)))
    return np.stack([pack_panels(matrix, plan.block.width) for matrix in padded])


class _Winograd:
    """Emits the loop over blocks of tiles, and in it the three steps."""

    def __init__(self, buffers: Arguments, plan: WinogradPlan, activation: str) -> None:
        self.buffers, self.plan, self.activation = buffers, plan, activation
        self.geometry, self.lanes = plan.geometry, plan.block.lanes
        self.weights, self.bias = buffers.constants

    def emit(self, cores: int) -> None:
        """Emit the whole convolution for ``cores`` threads."""
        plan = self.plan
        units = self.geometry.batch * plan.units_down
        inputs = workspace(plan.points * plan.input_size)
        products = workspace(plan.points * plan.product_size)
        with T.serial(-(-units // plan.block_units)) as block:
            first = T.Bind(T.min(block * plan.block_units, units - plan.block_units))
            groups = -(-self.geometry.channels // self.lanes)
            with shared_loop(groups * plan.block_units, cores) as task:
                self._transform_input(inputs, first, task // groups, task % groups)
            self._multiply(inputs, products, cores)
            groups = -(-plan.out_channels // self.lanes)
            with shared_loop(groups * plan.block_units, cores) as task:
                self._transform_output(products, first, task // groups, task % groups)

    def _place(self, first, unit) -> tuple:
        """Return sample, first row of tiles and first tile in the block of a unit; the block's first is ``first``."""
        plan = self.plan
        index = T.Bind(first + unit)
        row = T.Bind(T.min(index % plan.units_down * plan.unit_rows, plan.tiles_down - plan.unit_rows))
        return T.Bind(index // plan.units_down), row, T.Bind(unit * plan.unit_tiles)

    def _transform_input(self, inputs, first, unit, group) -> None:
        """Emit ``inputs[point, tile, phase and channel]`` for the tiles of a unit and one vector of channels."""
        plan, geometry, lanes = self.plan, self.geometry, self.lanes
        sample, row, tile = self._place(T.Bind(first), T.Bind(unit))
        channel = T.Bind(T.max(T.min(group * lanes, geometry.channels - lanes), 0))
        strip = workspace(plan.strip_rows * plan.strip_columns * lanes)
        top = row * (plan.vertical.outputs * geometry.stride[0])
        self._fill_strip(strip, sample * geometry.channels + channel, top)
        half = workspace(plan.vertical.points * plan.strip_columns * lanes)
        with T.serial(plan.unit_rows) as down:
            place = T.Bind((tile + down * plan.tiles_across) * plan.input_pitch + channel)
            for phase in range(geometry.stride[0]):
                # In this order, as a vector of too few channels reaches into what is written after it.
                columns = [(i, b) for i, (a, b) in enumerate(plan.phases) if a == phase]
                if columns:
                    start = T.Bind((down * plan.vertical.outputs * geometry.stride[0] + phase) * plan.strip_columns)
                    self._transform_columns(strip, start, half)
                    self._transform_rows(half, columns, inputs, place)

    def _transform_columns(self, strip, start, half) -> None:
        """Emit ``half[point, column, channel]``, the values of each column of a row of tiles."""
        plan, lanes = self.plan, self.lanes
        pitch = plan.strip_columns * lanes
        step = pitch * self.geometry.stride[0]
        with T.serial(plan.strip_columns) as column:
            first = T.Bind((start + column) * lanes)
            values = [load(strip, first + i * step, lanes) for i in range(plan.vertical.points)]
            for i, value in enumerate(combined(plan.vertical.input_matrix, values, lanes)):
                store(half, column * lanes + i * pitch, value, lanes)

    def _transform_rows(self, half, phases: list[tuple[int, int]], inputs, place) -> None:
        """Emit the values along rows of ``half`` to ``inputs[place:]``, for (number, first column) of ``phases``."""
        plan, lanes = self.plan, self.lanes
        step = self.geometry.stride[1] * lanes
        with T.serial(plan.tiles_across) as across, T.serial(plan.vertical.points) as point:
            row = T.Bind(point * (plan.strip_columns * lanes) + across * (plan.horizontal.outputs * step))
            target = T.Bind(place + across * plan.input_pitch + point * (plan.horizontal.points * plan.input_size))
            for number, column in phases:
                values = [load(half, row + column * lanes + j * step, lanes) for j in range(plan.horizontal.points)]
                offset = number * self.geometry.channels
                for j, value in enumerate(combined(plan.horizontal.input_matrix, values, lanes)):
                    store(inputs, target + j * plan.input_size + offset, value, lanes)

    def _fill_strip(self, strip, channel, top) -> None:
        """Emit the transposed copy of padded input rows from ``top`` on to ``strip[row, column, channel]``."""
        plan, geometry, lanes = self.plan, self.geometry, self.lanes
        pitch = plan.strip_columns * lanes
        left = geometry.padding[1] * lanes
        right = left + geometry.width * lanes
        start = T.Bind(T.min(T.max(geometry.padding[0] - top, 0), plan.strip_rows))
        stop = T.Bind(T.max(T.min(geometry.height + geometry.padding[0] - top, plan.strip_rows), start))
        source = T.Bind((channel * geometry.height + top - geometry.padding[0]) * geometry.width)
        self._zero(strip, 0, start * plan.strip_columns)
        with T.serial(stop - start) as i:
            row = T.Bind((start + i) * pitch)
            self._zero(strip, row, geometry.padding[1])
            self._transpose_row(strip, row + left, source + (start + i) * geometry.width)
            self._zero(strip, row + right, plan.strip_columns - geometry.padding[1] - geometry.width)
        self._zero(strip, stop * pitch, (plan.strip_rows - stop) * plan.strip_columns)

    def _zero(self, strip, start, count) -> None:
        with T.serial(count) as i:
            store(strip, start + i * self.lanes, splat(0.0, self.lanes), self.lanes)

    def _transpose_row(self, strip, target, source) -> None:
        """Emit the copy of one row of ``lanes`` channels from ``x[source:]`` on."""
        geometry, lanes, x = self.geometry, self.lanes, self.buffers.x
        # Where there are fewer channels than lanes, the last one stands for the others, which nothing reads.
        planes = [min(i, geometry.channels - 1) * (geometry.height * geometry.width) for i in range(lanes)]
        if geometry.width < lanes:
            with T.serial(geometry.width) as column:
                for i, plane in enumerate(planes):
                    store(strip, target + column * lanes + i, load(x, source + plane + column, 1), 1)
            return
        with T.serial(-(-geometry.width // lanes)) as step:
            column = T.Bind(T.min(step * lanes, geometry.width - lanes))
            rows = [load(x, source + column + plane, lanes) for plane in planes]
            for j, vector in enumerate(transposed(rows)):
                store(strip, target + column * lanes + j * lanes, vector, lanes)

    def _multiply(self, inputs, products, cores: int) -> None:
        """Emit ``products[point, tile, output channel]`` of the block's tiles, for every point."""
        plan, depth, length = self.plan, self.plan.depth, self.plan.length
        panels = plan.panels
        chunks = row_chunks(panels, plan.points, cores)
        share = -(-panels // chunks)
        with shared_loop(plan.points * chunks, cores) as task:
            point = T.Bind(task // chunks)
            first = T.Bind(task % chunks * share)
            with T.serial(T.min(share, panels - first)) as offset:
                panel = T.Bind(first + offset)
                weights = T.Bind((point * panels + panel) * (depth * plan.block.width))
                values = T.Bind(point * plan.input_size)
                place = T.Bind(point * plan.product_size + panel * plan.block.width)
                self._part(inputs, products, weights, values, place, length, first=True)
                whole, rest = divmod(depth - length, length)
                with T.serial(whole) as part:
                    start = T.Bind((part + 1) * length)
                    self._part(inputs, products, weights + start * plan.block.width, values + start, place, length)
                if rest:
                    start = depth - rest
                    self._part(inputs, products, weights + start * plan.block.width, values + start, place, rest)

    def _part(self, inputs, products, weights, values, place, length: int, *, first: bool = False) -> None:
        """Emit ``length`` steps of the reduction for all tiles: of the point's panel of ``weights``."""
        plan, block = self.plan, self.plan.block
        steps = plan.held_tiles // block.rows
        size = length * block.width
        with T.serial(steps) as step:
            tile = T.Bind(step * block.rows)
            fetch_share(self.weights, weights + size, size, step, steps)
            source = T.Bind(values + tile * plan.input_pitch)
            target = T.Bind(place + tile * plan.product_pitch)
            slots = [
                (block.slot(i, v), T.Bind(target + (i * plan.product_pitch + v * block.lanes)))
                for i in range(block.rows)
                for v in range(block.vectors)
            ]
            sums = block.allocate()
            for slot, held in slots:
                begin = splat(0.0, block.lanes) if first else load(products, held, block.lanes)
                store(sums, slot, begin, block.lanes)
            narrow = Operand(inputs, source, 1, across=plan.input_pitch)
            block.multiply(sums, length, Operand(self.weights, weights, block.width), narrow)
            for slot, held in slots:
                store(products, held, load(sums, slot, block.lanes), block.lanes)

    def _transform_output(self, products, first, unit, group) -> None:
        """Emit the outputs of a unit's tiles in one vector of output channels."""
        plan, geometry, lanes = self.plan, self.geometry, self.lanes
        sample, row, tile = self._place(T.Bind(first), T.Bind(unit))
        channel = T.Bind(T.min(group * lanes, plan.out_channels - lanes))
        bias = T.Bind(load(self.bias, channel, lanes))
        pitch = (plan.tiles_across * plan.horizontal.outputs + lanes) * lanes
        finished = workspace(plan.vertical.outputs * pitch)
        plane = geometry.out_height * geometry.out_width
        out = T.Bind((sample * plan.out_channels + channel) * plane)
        with T.serial(plan.unit_rows) as down:
            with T.serial(plan.tiles_across) as across:
                place = T.Bind((tile + down * plan.tiles_across + across) * plan.product_pitch + channel)
                start = T.Bind(across * (plan.horizontal.outputs * lanes))
                self._finish_tile(products, place, finished, start, pitch, bias)
            top = T.Bind((row + down) * plan.vertical.outputs)
            with T.serial(T.min(plan.vertical.outputs, geometry.out_height - top)) as i:
                self._store_row(finished, T.Bind(i * pitch), T.Bind(out + (top + i) * geometry.out_width))

    def _finish_tile(self, products, place, finished, start, pitch: int, bias) -> None:
        """Emit the outputs of one tile: ``finished[row, column, channel]``."""
        plan, lanes = self.plan, self.lanes
        columns = plan.horizontal.outputs
        half = registers(plan.vertical.points * columns, lanes)
        for i in range(plan.vertical.points):
            begin = T.Bind(place + i * (plan.horizontal.points * plan.product_size))
            values = [load(products, begin + j * plan.product_size, lanes) for j in range(plan.horizontal.points)]
            for j, value in enumerate(combined(plan.horizontal.output_matrix, values, lanes)):
                store(half, (i * columns + j) * lanes, value, lanes)
        for j in range(columns):
            values = [load(half, (i * columns + j) * lanes, lanes) for i in range(plan.vertical.points)]
            for i, value in enumerate(combined(plan.vertical.output_matrix, values, lanes)):
                store(finished, start + i * pitch + j * lanes, value + bias, lanes)

    def _store_row(self, finished, start, target) -> None:
        """Emit the transposition and the store, with the epilogue, of a row of ``lanes`` output channels."""
        geometry, lanes = self.geometry, self.lanes
        plane = geometry.out_height * geometry.out_width
        row = Tile(1, geometry.out_width, 1, geometry.out_width, lanes)
        with T.serial(len(row.starts)) as step:
            column = T.Bind(T.min(step * lanes, row.starts[-1]))
            values = [load(finished, start + column * lanes + j * lanes, lanes) for j in range(lanes)]
            for i, vector in enumerate(transposed(values)):
                store_result(
                    self.buffers, target + column + i * plane, vector, lanes, row.stored_lanes, self.activation
                )
