"""A sparse 1x1 convolution and the depthwise one after it in one kernel: what lies between never leaves the cache.

Blocks of mobile networks widen their input several times, filter each channel, and narrow the result again. With sparse
weights the wide tensor costs more to write to memory and read back than to compute. Here a few of its channels are
computed for some rows, straight into the padded planes that the filters read, filtered, and forgotten. Rows that two
strips of the output read are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_csr
from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.contract import Convolution, Kernel
from graphprune.backend.kernels.csr_sums import CsrSums
from graphprune.backend.kernels.depthwise_filter import DepthwiseFilter, most_vectors, strip_rows
from graphprune.backend.kernels.emit import Arguments, arguments, building, load, store, workspace
from graphprune.backend.kernels.epilogue import bias_constant
from graphprune.backend.kernels.geometry import ConvGeometry, conv_geometry
from graphprune.backend.kernels.planes import clear_row, over_strip, pad_row
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.kernels.tiling import Tile, choose_tile
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

_PLANES_FLOATS = 16384  # 64 KiB of planes stay well inside a second-level cache, beside the input they come from
_MOST_TOGETHER = 4  # channels computed before they are filtered; more of them only need more cache
_STEP_OVERHEAD = 1.5  # of one non-zero, in vector operations
# When it pays, measured: there has to be traffic to save, and neither many taps nor narrow rows, on which the
# separate kernels compute faster.
_LEAST_BYTES = 2**20  # of the tensor between the two
_LEAST_VECTORS = 6  # in one of its rows
_MOST_TAPS = 9
_MOST_NONZEROS = 16  # in a row of the 1x1 convolution's weight, on average


def expanded_depthwise(expansion: Convolution, depthwise: Convolution, target: CompileTarget) -> Kernel:
    """Return the kernel of ``depthwise`` on the result of ``expansion``; a residual is that of ``depthwise``.

    Raises:
        BackendError: if the two do not follow each other, or only other convolutions are known to gain by it.
    """
    geometry = pair_geometry(expansion, depthwise, target)
    _require_gain(expansion, geometry)
    return fused_kernel(expansion, depthwise, geometry, target)


def pair_geometry(expansion: Convolution, depthwise: Convolution, target: CompileTarget) -> ConvGeometry:
    """Return the geometry of the depthwise convolution, after checking what the kernel relies on."""
    first, second = expansion.shape, depthwise.shape
    channels = expansion.weight.shape[0]
    plain = (first.stride, first.padding, first.groups) == ((1, 1), (0, 0), 1)
    if expansion.weight.shape[2:] != (1, 1) or not plain or expansion.epilogue.residual:
        raise BackendError("what comes before is not a plain 1x1 convolution")
    if second.groups != channels or depthwise.weight.shape[1] != 1 or second.x_shape[1] != channels:
        raise BackendError("what comes after is not a depthwise convolution of its channels")
    geometry = conv_geometry(depthwise.weight.shape, second, target.lanes)
    if geometry.single_tap or geometry.stride[1] > 2 or geometry.width < 2 * target.lanes:
        raise BackendError("the depthwise convolution is 1x1, has a stride above 2, or its planes are narrow")
    columns = geometry.width + geometry.padding[1]
    if any(-(-(columns - phase) // geometry.stride[1]) > geometry.pitch for _, phase in geometry.phases):
        raise BackendError("the depthwise convolution leaves columns of its input unread")
    return geometry


def _require_gain(expansion: Convolution, geometry: ConvGeometry) -> None:
    between = 4 * geometry.batch * geometry.channels * geometry.height * geometry.width
    if between < _LEAST_BYTES or geometry.width < _LEAST_VECTORS * geometry.lanes:
        raise BackendError("the tensor between them fits a cache, or its rows are short")
    if geometry.kernel[0] * geometry.kernel[1] > _MOST_TAPS:
        raise BackendError("the depthwise convolution computes more than it waits for memory")
    if np.count_nonzero(expansion.weight) > _MOST_NONZEROS * len(expansion.weight):
        raise BackendError("the 1x1 convolution computes more than it waits for memory")


def fused_kernel(
    expansion: Convolution, depthwise: Convolution, geometry: ConvGeometry, target: CompileTarget
) -> Kernel:
    """Return the kernel, whether or not it is faster than two."""
    channels, depth = expansion.weight.shape[:2]
    rows = depthwise.weight.shape[0]
    out_shape = geometry.out_shape(rows)
    packed = pack_csr(expansion.weight.reshape(channels, depth), np.arange(depth) * (geometry.height * geometry.width))
    constants = (
        *packed.arrays,
        bias_constant(expansion.bias, expansion.epilogue, channels),
        np.ascontiguousarray(depthwise.weight.reshape(-1)),
        bias_constant(depthwise.bias, depthwise.epilogue, rows),
    )
    strip = geometry.strip(strip_rows(geometry, _PLANES_FLOATS // _MOST_TOGETHER))
    tile = _row_tile(geometry, target)
    with building("expanded_depthwise") as emitter:
        buffers = arguments(expansion.shape.x_shape, out_shape, constants, residual=depthwise.epilogue.residual)
        sums = CsrSums(buffers.constants[:-2], packed, tile.starts, geometry.lanes, target.registers)
        activations = expansion.epilogue.activation, depthwise.epilogue.activation
        block = _Block(buffers, sums, depth, geometry, strip, tile, rows // channels, activations)
        block.emit(target.cores)
    note = f"csr tile 1x{tile.columns}, depthwise tile {block.filter.tile.rows}x{block.filter.tile.columns}, "
    note += f"{block.strips} strips, {packed.note}"
    return Kernel("expanded_depthwise", emitter.function, constants, out_shape, note=note)


def _row_tile(geometry: ConvGeometry, target: CompileTarget) -> Tile:
    """Return the tile that cuts a row of the expanded planes; at stride 2 all of them start at even columns."""
    tile = choose_tile(1, geometry.width, geometry.lanes, target.registers - 4, _STEP_OVERHEAD)
    if geometry.stride[1] == 2 and (geometry.width - tile.columns) % 2:
        raise BackendError("rows of odd length are cut into tiles that start at odd columns")
    return tile


class _Block:
    """Emits the parallel loop over (sample, strip of rows, group of channels)."""

    def __init__(
        self,
        buffers: Arguments,
        sums: CsrSums,
        depth: int,
        geometry: ConvGeometry,
        strip: ConvGeometry,
        tile: Tile,
        multiplier: int,
        activations: tuple[str, str],
    ) -> None:
        self.buffers, self.sums, self.depth, self.geometry, self.strip = buffers, sums, depth, geometry, strip
        self.tile, self.multiplier, self.activation = tile, multiplier, activations[0]
        self.filter = DepthwiseFilter(buffers, strip, geometry, multiplier, most_vectors(geometry), activations[1])
        self.strips = -(-geometry.rows // strip.rows)
        self.together = min(_MOST_TOGETHER, geometry.channels)

    def emit(self, cores: int) -> None:
        """Emit both convolutions for ``cores`` threads."""
        geometry, strip, together = self.geometry, self.strip, self.together
        groups = -(-geometry.channels // together)
        # Neighbouring groups read the same rows of the input: they come one after another.
        with shared_loop(geometry.batch * self.strips * groups, cores) as task:
            first = T.Bind(T.min(task % groups * together, geometry.channels - together))
            first_row = T.Bind(T.min(task // groups % self.strips * strip.rows, geometry.rows - strip.rows))
            sample = T.Bind(task // (groups * self.strips))
            planes = workspace(together * strip.channel_size + geometry.lanes)

            def fill(row, columns: list[int], source) -> None:
                self._for_each(row, lambda own: pad_row(planes, own, columns, strip))
                self._expand_row(planes, row, columns, sample, first, source)

            def clear(row, columns: list[int]) -> None:
                self._for_each(row, lambda own: clear_row(planes, own, columns, strip))

            over_strip(geometry, strip, first_row, fill, clear)
            channel = T.Bind(sample * geometry.channels + first)
            tiles = self.filter.tile.count
            with T.serial(together) as step, T.serial(self.multiplier) as copy, T.serial(tiles) as position:
                base = step * strip.channel_size
                self.filter.emit(planes, base, channel + step, copy, first_row, position)

    def _for_each(self, row, emit: Callable) -> None:
        """Emit ``emit(row)`` for each channel of a group, ``row`` being the first one's."""
        with T.serial(self.together) as step:
            emit(T.Bind(row + step * self.strip.channel_size))

    def _expand_row(self, planes, row, columns: list[int], sample, first, source) -> None:
        """Emit one row of the expanded planes of a group of channels."""
        geometry, tile = self.geometry, self.tile
        plane = geometry.height * geometry.width
        with T.serial(tile.tiles_across) as position:
            _, x = tile.origin(position)
            start = T.Bind(sample * (self.depth * plane) + source * geometry.width + x)
            place = partial(self._place, planes, row, columns, x)
            self.sums.over_blocks(first, self.together, self.buffers.x, start, None, place)

    def _place(self, planes, row, columns: list[int], x, held, step) -> None:
        """Emit the activation and the store of a tile of sums from column ``x`` on, apart by horizontal phase."""
        geometry, strip, lanes = self.geometry, self.strip, self.geometry.lanes
        start = T.Bind(row + step * strip.channel_size)
        stride, padding = geometry.stride[1], geometry.padding[1]
        for run in _runs(self.tile.starts, lanes, stride):
            vectors = [T.Bind(activate(self.activation, load(held, v * lanes, lanes), lanes)) for v in run]
            for shift in range(stride):
                column = self.tile.starts[run[0]] + shift + padding
                if column % stride not in columns:
                    continue
                plane = columns.index(column % stride) * strip.plane_rows * strip.pitch
                width = len(run) * lanes // stride
                value = vectors[0] if stride == 1 else tirx.Shuffle(vectors, list(range(shift, len(run) * lanes, 2)))
                store(planes, start + plane + x // stride + column // stride, value, width)


def _runs(starts: tuple[int, ...], lanes: int, most: int) -> list[list[int]]:
    """Return the vectors, by number, in runs of up to ``most`` that follow each other without a gap."""
    runs: list[list[int]] = []
    for v, start in enumerate(starts):
        if runs and len(runs[-1]) < most and start == starts[v - 1] + lanes:
            runs[-1].append(v)
        else:
            runs.append([v])
    return runs
