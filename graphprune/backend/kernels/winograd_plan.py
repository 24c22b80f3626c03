"""How Winograd's algorithm computes a convolution: tiles, blocks, and whether it is likely to be the faster way.

Outputs are cut into tiles, each computed from the values of its input at ``points x points`` points. A unit is the rows
of tiles that one task transforms, a block the units whose transformed values are held at a time. With a stride, every
phase of the input (each second row and column, say) is convolved with its share of the taps, and the phases are added
like further channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.minimal_filtering import Filtering, filtering, has_filtering
from graphprune.backend.kernels.register_block import RegisterBlock, choose_block, most_rows, reduction_block
from graphprune.backend.kernels.tiling import LINE_FLOATS
from graphprune.backend.target import CompileTarget

_HELD_FLOATS = 2**20  # transformed inputs and products of one block of tiles: 4 MiB of the last-level cache
_BLOCK_FLOATS = 2048  # weights of one reduction block take 8 KiB: room for the next one's in a first-level cache
_POINTS = (4, 5, 6)  # along each filtered axis: tiles of 2x2 to 4x4 outputs of a 3x3 convolution
_TRANSFORM_COST = 8.0  # of one point of one tile in a vector of channels, going in or out, in half cycles
_WEIGHT_COST = 1.5  # of one weight that comes from memory, in half cycles
_STEP_COST = 3e4  # of handing a step out to threads, in half cycles
_STRIP_FLOATS = 2**15  # transposed input of one unit: 128 KiB of the second-level cache


@dataclass(frozen=True)
class WinogradPlan:
    """How a layer is cut into tiles, units and blocks.

    Attributes:
        vertical, horizontal: the algorithms along columns and rows.
        unit_rows: rows of tiles in a unit.
        block_units: units in a block.
        block: tiles x output channels of a product in registers.
    """

    geometry: ConvGeometry
    out_channels: int
    vertical: Filtering
    horizontal: Filtering
    unit_rows: int
    block_units: int
    block: RegisterBlock

    @property
    def phases(self) -> list[tuple[int, int]]:
        """First row and column of each phase of the input that meets some taps."""
        vertical, horizontal = (min(pair) for pair in zip(self.geometry.stride, self.geometry.kernel, strict=True))
        return [(a, b) for a in range(vertical) for b in range(horizontal)]

    @property
    def depth(self) -> int:
        """Steps of the reduction: channels of all phases."""
        return len(self.phases) * self.geometry.channels

    @cached_property
    def length(self) -> int:
        """Steps of the reduction whose weights of one panel stay in the first-level cache."""
        return reduction_block(self.depth, _BLOCK_FLOATS // self.block.width)

    @property
    def points(self) -> int:
        """Products of one tile for a pair of channels."""
        return self.vertical.points * self.horizontal.points

    @property
    def tiles_down(self) -> int:
        """Rows of tiles in a sample."""
        return -(-self.geometry.out_height // self.vertical.outputs)

    @property
    def tiles_across(self) -> int:
        """Tiles in a row."""
        return -(-self.geometry.out_width // self.horizontal.outputs)

    @property
    def units_down(self) -> int:
        """Units in a sample; the last one is moved back to end at its edge."""
        return -(-self.tiles_down // self.unit_rows)

    @property
    def unit_tiles(self) -> int:
        """Tiles in a unit."""
        return self.unit_rows * self.tiles_across

    @property
    def tiles(self) -> int:
        """Tiles in a block."""
        return self.block_units * self.unit_tiles

    @property
    def strip_rows(self) -> int:
        """Rows of input that a unit reads."""
        return self.geometry.stride[0] * (self.unit_rows * self.vertical.outputs + self.vertical.taps - 1)

    @property
    def strip_columns(self) -> int:
        """Columns of padded input that a unit holds."""
        read = self.geometry.stride[1] * (self.tiles_across * self.horizontal.outputs + self.horizontal.taps - 1)
        return max(read, self.geometry.padding[1] + self.geometry.width)

    @property
    def held_tiles(self) -> int:
        """Tiles in a block, in whole register blocks."""
        return -(-self.tiles // self.block.rows) * self.block.rows

    @property
    def panels(self) -> int:
        """Panels of output channels."""
        return -(-self.out_channels // self.block.width)

    @property
    def input_pitch(self) -> int:
        """Floats from one tile's transformed input to the next tile's."""
        # Fewer channels than lanes are written as a whole vector.
        return _pitch(self.depth + max(0, self.block.lanes - self.geometry.channels))

    @property
    def product_pitch(self) -> int:
        """Floats from one tile's products to the next tile's."""
        return _pitch(self.panels * self.block.width)

    @property
    def input_size(self) -> int:
        """Floats from one point's transformed inputs to the next point's."""
        return self.held_tiles * self.input_pitch + LINE_FLOATS

    @property
    def product_size(self) -> int:
        """Floats from one point's products to the next point's."""
        return self.held_tiles * self.product_pitch + LINE_FLOATS


def _pitch(channels: int) -> int:
    """Return a row length for ``channels`` floats of which many rows do not compete for the same cache sets."""
    lines = -(-channels // LINE_FLOATS)
    return (lines + (lines % 8 == 0)) * LINE_FLOATS


def plan_winograd(geometry: ConvGeometry, out_channels: int, target: CompileTarget, points: int) -> WinogradPlan | None:
    """Return how an ungrouped layer is computed with ``points`` along each filtered axis; None if it cannot be."""
    taps = [-(-size // step) for size, step in zip(geometry.kernel, geometry.stride, strict=True)]
    filtered = [count for count in taps if count > 1]
    if geometry.dilation != (1, 1) or out_channels < target.lanes:
        return None
    if not filtered or not all(has_filtering(points, count) for count in filtered):
        return None
    plan = WinogradPlan(
        geometry,
        out_channels,
        vertical=filtering(points, taps[0]),
        horizontal=filtering(points, taps[1]),
        unit_rows=1,
        block_units=1,
        block=RegisterBlock(1, 1, target.lanes),
    )
    strip_row = geometry.stride[0] * plan.strip_columns * target.lanes
    most = (_STRIP_FLOATS // strip_row - plan.vertical.taps + 1) // plan.vertical.outputs
    groups = -(-min(geometry.channels, out_channels) // target.lanes)
    shared = -(-plan.tiles_down * geometry.batch * groups // (4 * target.cores))
    units = -(-plan.tiles_down // max(1, min(most, shared, plan.tiles_down)))
    plan = replace(plan, unit_rows=-(-plan.tiles_down // units))
    held = plan.points * (plan.input_size + plan.product_size)
    plan = replace(plan, block_units=min(geometry.batch * plan.units_down, max(1, _HELD_FLOATS // held)))
    return replace(plan, block=_register_block(plan.tiles, out_channels, plan.depth, target))


def choose_winograd(
    geometry: ConvGeometry, out_channels: int, target: CompileTarget, points: int | None = None
) -> WinogradPlan | None:
    """Return how to compute an ungrouped layer by Winograd's algorithm; None if it cannot be, or had better not.

    With ``points`` it is computed with so many, whatever that costs; 0 stands for not at all. Else the cheapest way
    counts, if it costs less than a direct product, and the target does not forbid it.
    """
    if points == 0 or not target.winograd:
        return None
    if points is not None:
        return plan_winograd(geometry, out_channels, target, points)
    if geometry.channels < target.lanes:  # too short a reduction for what its transforms cost
        return None
    plans = [plan for count in _POINTS if (plan := plan_winograd(geometry, out_channels, target, count)) is not None]
    best = min(plans, key=_cost, default=None)
    return best if best is not None and _cost(best) < _direct_cost(geometry, out_channels, target) else None


def _cost(plan: WinogradPlan) -> float:
    """Return the estimated time of a layer in half cycles of one thread."""
    geometry, block, lanes = plan.geometry, plan.block, plan.block.lanes
    products = plan.held_tiles // block.rows * plan.panels * block.cost(plan.depth)
    vectors = -(-geometry.channels // lanes) * len(plan.phases) + -(-plan.out_channels // lanes)
    weights = plan.depth * plan.panels * block.width
    of_point = products + plan.tiles * vectors * _TRANSFORM_COST + weights * _WEIGHT_COST
    blocks = -(-geometry.batch * plan.units_down // plan.block_units)
    return blocks * (plan.points * of_point + 3 * _STEP_COST)


def _direct_cost(geometry: ConvGeometry, out_channels: int, target: CompileTarget) -> float:
    """Return the estimated time of the layer as one product of positions and output channels, in half cycles."""
    plane = geometry.out_height * geometry.out_width
    depth = geometry.channels * geometry.kernel[0] * geometry.kernel[1]
    costs = []
    for rows, columns in ((out_channels, plane), (plane, out_channels)):
        block = choose_block(rows, columns, depth, target)
        costs.append(-(-rows // block.rows) * -(-columns // block.width) * block.cost(depth))
    return geometry.batch * min(costs) + out_channels * depth * _WEIGHT_COST + 2 * _STEP_COST


def _register_block(tiles: int, channels: int, depth: int, target: CompileTarget) -> RegisterBlock:
    """Return the block of tiles x output channels that takes the least time."""
    candidates = [
        RegisterBlock(rows, vectors, target.lanes)
        for vectors in range(1, 5)
        for rows in range(1, min(tiles, most_rows(vectors, target.registers)) + 1)
        if vectors * target.lanes <= channels
    ]
    return min(candidates, key=lambda b: -(-tiles // b.rows) * -(-channels // b.width) * b.cost(depth))
