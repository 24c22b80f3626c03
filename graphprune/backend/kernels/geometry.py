"""How a convolution reads its input: zero-padded planes, split by stride phase, in which every tap is a fixed shift.

For stride (sh, sw) the padded input splits into sh * sw phase planes, plane (a, b) holding rows a, a + sh, ... and
columns b, b + sw, .... The input of tap (r, s) for output (y, x) is then at ``tap_offset(r, s) + y * pitch + x``:
consecutive output columns read consecutive floats, whatever the stride, and no im2col is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from graphprune.backend.kernels.contract import ConvShape
from graphprune.backend.kernels.tiling import LINE_FLOATS
from graphprune.errors import BackendError

_ALIGNMENT_WASTE = 1.3  # rows are padded to whole vectors if that makes them at most this much longer


@dataclass(frozen=True)
class ConvGeometry:
    """Shapes of one 2-d convolution and the layout of the planes it reads.

    Attributes:
        batch, channels, height, width: the input, NCHW.
        kernel, stride, padding, dilation: (vertical, horizontal) pairs.
        lanes: float32 lanes of a vector; planes are padded so that one vector past any output stays inside the buffer.
    """

    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    lanes: int

    def __post_init__(self) -> None:
        if min(self.out_height, self.out_width) < 1:
            raise BackendError(
                f"a convolution with kernel {self.kernel} and padding {self.padding} has no output on a "
                f"{self.height}x{self.width} input",
                hint="use a larger input",
            )

    @cached_property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._extent(0, self.height)

    @cached_property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._extent(1, self.width)

    def _extent(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (size + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input."""
        return self.batch, self.channels, self.height, self.width

    def out_shape(self, out_channels: int) -> tuple[int, int, int, int]:
        """Return the shape of an output of ``out_channels`` channels."""
        return self.batch, out_channels, self.out_height, self.out_width

    @property
    def single_tap(self) -> bool:
        """Whether the kernel is 1x1, so that output positions form one long row."""
        return self.kernel == (1, 1)

    @property
    def direct(self) -> bool:
        """Whether the input itself serves as planes: 1x1, stride 1, no padding, at least one full vector."""
        return (
            self.single_tap
            and self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.height * self.width >= self.lanes
        )

    @property
    def rows(self) -> int:
        """Rows of output positions as kernels walk them; a 1x1 kernel has one long row."""
        return 1 if self.single_tap else self.out_height

    @property
    def columns(self) -> int:
        """Columns of output positions as kernels walk them."""
        return self.out_height * self.out_width if self.single_tap else self.out_width

    @cached_property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """The stride phases (a, b) that some tap reads."""
        vertical = sorted({r * self.dilation[0] % self.stride[0] for r in range(self.kernel[0])})
        horizontal = sorted({s * self.dilation[1] % self.stride[1] for s in range(self.kernel[1])})
        return tuple((a, b) for a in vertical for b in horizontal)

    @property
    def reach(self) -> int:
        """Rows of a plane that an output row reads beyond its own."""
        return (self.kernel[0] - 1) * self.dilation[0] // self.stride[0]

    @cached_property
    def plane_rows(self) -> int:
        """Rows of one phase plane."""
        return self.out_height + self.reach

    @cached_property
    def _needed_pitch(self) -> int:
        return self.out_width + (self.kernel[1] - 1) * self.dilation[1] // self.stride[1]

    @cached_property
    def aligned(self) -> bool:
        """Whether rows of planes start on vector boundaries; not where that would waste much of a narrow plane."""
        rounded = -(-self._needed_pitch // self.lanes) * self.lanes
        return not self.single_tap and rounded <= _ALIGNMENT_WASTE * self._needed_pitch

    @cached_property
    def pitch(self) -> int:
        """Floats from one row of a plane to the next."""
        if self.aligned:
            return -(-self._needed_pitch // self.lanes) * self.lanes
        return self._needed_pitch

    @cached_property
    def channel_size(self) -> int:
        """Floats from one channel's planes to the next channel's.

        Aligned planes take an odd number of cache lines, so that channels do not compete for the same cache sets.
        """
        if self.direct:
            return self.height * self.width
        size = len(self.phases) * self.plane_rows * self.pitch
        if not self.aligned:
            return size
        lines = -(-size // LINE_FLOATS)
        return (lines + (lines + 1) % 2) * LINE_FLOATS

    @property
    def sample_size(self) -> int:
        """Floats from one sample's planes to the next sample's."""
        return self.channels * self.channel_size

    @property
    def workspace_size(self) -> int:
        """Floats of the planes buffer, with room for one vector past its end."""
        return self.batch * self.sample_size + self.lanes

    def strip(self, rows: int) -> ConvGeometry:
        """Return a geometry with ``rows`` rows of output, whose planes hold just what these rows read."""
        reach = self.dilation[0] * (self.kernel[0] - 1)
        return replace(self, height=(rows - 1) * self.stride[0] + reach + 1 - 2 * self.padding[0])

    def tap_offset(self, r: int, s: int) -> int:
        """Return where tap (r, s) of output position (0, 0) lies inside a channel's planes."""
        vertical, horizontal = r * self.dilation[0], s * self.dilation[1]
        phase = self.phases.index((vertical % self.stride[0], horizontal % self.stride[1]))
        row, column = vertical // self.stride[0], horizontal // self.stride[1]
        return (phase * self.plane_rows + row) * self.pitch + column

    def reduction_offsets(self, channels: int | None = None) -> np.ndarray:
        """Return ``tap_offset`` for every (channel, r, s) of the first ``channels``: int64 [channels * kh * kw].

        None stands for all channels of a sample.
        """
        taps = [self.tap_offset(r, s) for r in range(self.kernel[0]) for s in range(self.kernel[1])]
        count = self.channels if channels is None else channels
        return (np.arange(count)[:, None] * self.channel_size + np.array(taps)).ravel()

    def interior(self, axis: int, phase: int) -> tuple[int, int]:
        """Return the half-open range of plane rows (axis 0) or columns (axis 1) of ``phase`` that hold real input."""
        size = (self.height, self.width)[axis]
        extent = (self.plane_rows, self.pitch)[axis]
        first = -(-(self.padding[axis] - phase) // self.stride[axis])
        last = (size - 1 + self.padding[axis] - phase) // self.stride[axis]
        start = min(max(first, 0), extent)
        return start, max(min(last + 1, extent), start)


def conv_geometry(
    weight_shape: Sequence[int],
    shape: ConvShape,
    lanes: int,
) -> ConvGeometry:
    """Check the shapes of a convolution and return its geometry; raises ``BackendError`` if they do not fit."""
    x_shape, groups = shape.x_shape, shape.groups
    if len(x_shape) != 4 or len(weight_shape) != 4:
        raise BackendError(f"conv2d needs 4-d input and weight, got {tuple(x_shape)} and {tuple(weight_shape)}")
    if not all(isinstance(size, int) for size in x_shape):
        raise BackendError(
            f"conv2d kernels are compiled for fixed sizes, got {tuple(x_shape)}", hint="compile without dynamic shapes"
        )
    out_channels, group_channels = weight_shape[:2]
    if group_channels * groups != x_shape[1] or out_channels % groups:
        raise BackendError(
            f"weight {tuple(weight_shape)} in {groups} groups does not fit input {tuple(x_shape)}",
            axis=1,
            hint="the input needs groups * weight.shape[1] channels, the output a multiple of groups",
        )
    return ConvGeometry(
        *(int(size) for size in x_shape),
        kernel=_pair(weight_shape[2:]),
        stride=_pair(shape.stride),
        padding=_pair(shape.padding),
        dilation=_pair(shape.dilation),
        lanes=lanes,
    )


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values if len(values) == 2 else (values[0], values[0])
    return int(first), int(second)
