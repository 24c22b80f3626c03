"""Rewrites convolutions along one or three axes, and transposed ones, as conv2d, the form that has kernels.

A transposed convolution of stride s is an ordinary one with s times as many channels along each axis, one for each
position that the outputs of one input can have, whose results are then sorted into place (sub-pixel convolution).
A convolution along three axes is one along two whose channels are those of all frames that a filter sees at once.
Both only rearrange the weight, so its zeros stay, and sparse kernels skip them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphprune.graph import bind_arguments, get_attribute, graph_info, op_name
from graphprune.node_building import NodeBuilder
from graphprune.propagation import is_symbolic

aten = torch.ops.aten

CONVOLUTIONS = {f"conv{kind}{rank}d": (rank, bool(kind)) for rank in (1, 2, 3) for kind in ("", "_transpose")}
"""Name of an op -> how many axes it has, and whether it is transposed."""

Rearrange = Callable[[torch.Tensor], torch.Tensor]


def make_plain(gm: fx.GraphModule, activates: Callable[[fx.Node], bool]) -> dict[str, str]:
    """Rewrite, in place, every convolution with constant weights that is no conv2d of a batch already.

    An activation that is the only reader of the result, as ``activates`` tells, moves to the convolution inside.

    Returns:
        Path of the rewritten weight -> what became of the layer, for people.
    """
    done: dict[str, str] = {}
    for node in list(gm.graph.nodes):
        if op_name(node) not in CONVOLUTIONS or is_plain(node) or not _suits(node):
            continue
        follower = next(iter(node.users)) if len(node.users) == 1 else None
        if follower is not None and not activates(follower):
            follower = None
        with gm.graph.inserting_before(node):
            rewriting = _Rewriting(gm, node, follower)
            path, description = rewriting.rewrite()
        done[path] = description
    return done


def is_plain(node: fx.Node) -> bool:
    """Say whether a convolution is a conv2d of a batch, with padding in numbers or none."""
    bound = bind_arguments(node)
    return op_name(node) == "conv2d" and bound["input"].meta["val"].dim() == 4 and bound["padding"] != "same"


def _suits(node: fx.Node) -> bool:
    bound = bind_arguments(node)
    x = bound["input"].meta["val"]
    operands = [bound[name] for name in ("weight", "bias") if bound[name] is not None]
    constant = all(isinstance(operand, fx.Node) and operand.op == "get_attr" for operand in operands)
    static = op_name(node) == "conv1d" or not (is_symbolic(x) or is_symbolic(node.meta["val"]))
    return constant and static and x.dtype.is_floating_point


@dataclass(frozen=True)
class _Geometry:
    """Numbers of an ordinary convolution, one for each axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """Stride, padding and dilation."""
        return self.stride, self.padding, self.dilation

    def widened(self) -> _Geometry:
        """Return the same with an axis of size 1 before the others."""
        return _Geometry((1, *self.stride), (0, *self.padding), (1, *self.dilation), self.groups)


@dataclass(frozen=True)
class _Phases:
    """One axis of a transposed convolution as an ordinary one.

    Attributes:
        stride: of the transposed convolution; so many phases there are.
        extent: of the filter with its dilation.
        taps: of each phase's filter.
        padding: of the ordinary convolution.
        start: position of the first output among the sorted results.
        size: outputs.
    """

    stride: int
    extent: int
    taps: int
    padding: int
    start: int
    size: int

    @staticmethod
    def of(inputs: int, outputs: int, stride: int, extent: int, padding: int) -> _Phases:
        """Return the phases that compute the fewest results beyond those that are wanted.

        Output ``y`` is the sum over ``j`` of ``x[q - j] * w[r + stride * j]``, with ``y + padding = stride * q + r``.
        Results begin at ``q = skipped``; there are as many as an ordinary convolution padded alike at both ends has.
        """
        taps = -(-extent // stride)
        skipped = min(padding // stride, taps - 1)
        while padding + outputs > stride * (inputs + taps - 1 - skipped):
            if skipped:
                skipped -= 1
            else:
                taps += 1
        return _Phases(stride, extent, taps, taps - 1 - skipped, padding - stride * skipped, outputs)


class _Rewriting:
    """One convolution on its way to conv2d; new nodes go before the one at which the graph inserts."""

    def __init__(self, gm: fx.GraphModule, node: fx.Node, follower: fx.Node | None) -> None:
        self._gm = gm
        self._node = node
        self._follower = follower
        self._bound = bind_arguments(node)
        self._build = NodeBuilder(gm, node)
        self._rearrangements: list[Rearrange] = []
        self._phases = 1

    def rewrite(self) -> tuple[str, str]:
        """Replace the node, and the activation after it; return the new weight's path and what was done."""
        bound = self._bound
        rank, transposed = CONVOLUTIONS[op_name(self._node)]
        x = bound["input"]
        batched = x.meta["val"].dim() == rank + 2
        if not batched:
            x = self._build.call(aten.unsqueeze.default, x, 0)
        numbers = {name: _spread(bound[name], rank) for name in ("stride", "dilation")}
        if transposed:
            y = self._transposed(x, numbers["stride"], _spread(bound["padding"], rank), numbers["dilation"])
        else:
            x, padding = self._padded(x, bound["padding"], numbers["dilation"])
            y = self._plain(x, _Geometry(padding=padding, groups=bound["groups"], **numbers))
        if not batched:
            y = self._build.call(aten.squeeze.dim, y, 0)
        last = self._node if self._follower is None else self._follower
        y.meta = dict(last.meta)
        last.replace_all_uses_with(y)
        for old in dict.fromkeys((last, self._node)):
            self._gm.graph.erase_node(old)
        return self._path, f"{op_name(self._node)} as conv2d" + (f", {self._phases} phases" if transposed else "")

    # ------------------------------------------------------------------------------------------- ordinary ones

    def _padded(self, x: fx.Node, padding: Any, dilation: tuple[int, ...]) -> tuple[fx.Node, tuple[int, ...]]:
        """Return the input and the padding in numbers; what differs from end to end is padded beforehand."""
        kernel = self._bound["weight"].meta["val"].shape[2:]
        if not isinstance(padding, str):
            return x, _spread(padding, len(kernel))
        if padding == "valid":
            return x, (0,) * len(kernel)
        totals = [step * (taps - 1) for step, taps in zip(dilation, kernel, strict=True)]
        if any(total % 2 for total in totals):
            more = [number for total in reversed(totals) for number in (0, total % 2)]
            x = self._build.call(aten.constant_pad_nd.default, x, more)
        return x, tuple(total // 2 for total in totals)

    def _plain(self, x: fx.Node, geometry: _Geometry) -> fx.Node:
        rank = len(geometry.stride)
        if rank == 1:
            self._rearrangements.append(lambda weight: weight.unsqueeze(2))
            wide = self._build.call(aten.unsqueeze.default, x, 2)
            return self._build.call(aten.squeeze.dim, self._conv2d(wide, geometry.widened()), 2)
        return self._conv2d(x, geometry) if rank == 2 else self._conv3d(x, geometry)

    def _conv3d(self, x: fx.Node, geometry: _Geometry) -> fx.Node:
        depth_taps, *plane_taps = self._bound_kernel
        flat = max(plane_taps) == max(geometry.stride[1:]) == 1 and max(geometry.padding[1:]) == 0
        if flat:  # along depth only: a plane is one row
            return self._conv_along_depth(x, geometry)
        if depth_taps == 1 and geometry.stride[0] == 1 and geometry.padding[0] == 0:
            return self._conv_of_frames(geometry, self._build.call(aten.permute.default, x, [0, 2, 1, 3, 4]))
        return self._conv_of_frames(geometry, self._seen_together(x, geometry, depth_taps))

    def _conv_along_depth(self, x: fx.Node, geometry: _Geometry) -> fx.Node:
        samples, channels, depth, height, width = x.meta["val"].shape
        rows = self._build.call(aten.reshape.default, x, [samples, channels, depth, height * width])
        self._rearrangements.append(lambda weight: weight.flatten(3))
        stride, padding, dilation = ((of[0], other) for of, other in zip(geometry.numbers, (1, 0, 1), strict=True))
        y = self._conv2d(rows, _Geometry(stride, padding, dilation, geometry.groups))
        return self._build.call(aten.reshape.default, y, [*y.meta["val"].shape[:3], height, width])

    def _conv_of_frames(self, geometry: _Geometry, frames: fx.Node) -> fx.Node:
        """Convolve ``frames`` [samples, depth, channels, height, width]; channels come group by group, tap by tap."""
        samples, depth, *rest = frames.meta["val"].shape
        self._rearrangements.append(lambda weight: weight.transpose(1, 2).flatten(1, 2))
        batch = self._build.call(aten.reshape.default, frames, [samples * depth, *rest])
        stride, padding, dilation = (of[1:] for of in geometry.numbers)
        y = self._conv2d(batch, _Geometry(stride, padding, dilation, geometry.groups))
        apart = self._build.call(aten.reshape.default, y, [samples, depth, *y.meta["val"].shape[1:]])
        return self._build.call(aten.permute.default, apart, [0, 2, 1, 3, 4])

    def _seen_together(self, x: fx.Node, geometry: _Geometry, taps: int) -> fx.Node:
        """Return for each frame of the output the frames of the input that it depends on, one after another."""
        stride, padding, dilation = geometry.stride[0], geometry.padding[0], geometry.dilation[0]
        frames = self._build.call(aten.permute.default, x, [0, 2, 1, 3, 4])
        if padding:
            frames = self._build.call(aten.constant_pad_nd.default, frames, [0] * 6 + [padding] * 2)
        samples, depth, channels, *plane = frames.meta["val"].shape
        outputs = (depth - dilation * (taps - 1) - 1) // stride + 1
        groups = geometry.groups
        pieces = []
        for tap in range(taps):
            first = tap * dilation
            piece = self._build.call(aten.slice.Tensor, frames, 1, first, first + (outputs - 1) * stride + 1, stride)
            if groups > 1:
                piece = self._build.call(
                    aten.reshape.default, piece, [samples, outputs, groups, channels // groups, *plane]
                )
            pieces.append(piece)
        together = self._build.call(aten.cat.default, pieces, 3 if groups > 1 else 2)
        return self._build.call(aten.reshape.default, together, [samples, outputs, taps * channels, *plane])

    # ----------------------------------------------------------------------------------------- transposed ones

    def _transposed(
        self, x: fx.Node, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
    ) -> fx.Node:
        rank, groups = len(stride), self._bound["groups"]
        sizes = zip(x.meta["val"].shape[-rank:], self._node.meta["val"].shape[-rank:], strict=True)
        extents = [step * (taps - 1) + 1 for step, taps in zip(dilation, self._bound_kernel, strict=True)]
        axes = [_Phases.of(*size, *numbers) for size, *numbers in zip(sizes, stride, extents, padding, strict=True)]
        self._phases = math.prod(stride)
        self._rearrangements.append(lambda weight: _by_phase(weight, axes, dilation, groups))
        plain = _Geometry((1,) * rank, tuple(axis.padding for axis in axes), (1,) * rank, groups)
        return self._sorted(self._plain(x, plain), axes)

    def _sorted(self, y: fx.Node, axes: Sequence[_Phases]) -> fx.Node:
        """Put the results of all phases, [samples, channels * phases, ...], into place, and cut off the margin."""
        rank = len(axes)
        samples, channels, *sizes = y.meta["val"].shape
        if self._phases > 1:
            strides = [axis.stride for axis in axes]
            y = self._build.call(aten.reshape.default, y, [samples, channels // self._phases, *strides, *sizes])
            order = [place for axis in range(rank) for place in (2 + rank + axis, 2 + axis)]
            y = self._build.call(aten.permute.default, y, [0, 1, *order])
            sizes = [size * stride for size, stride in zip(sizes, strides, strict=True)]
            y = self._build.call(aten.reshape.default, y, [samples, channels // self._phases, *sizes])
        for place, (axis, size) in enumerate(zip(axes, sizes, strict=True), start=2):
            if axis.size < size:
                y = self._build.call(aten.slice.Tensor, y, place, axis.start, axis.start + axis.size)
        return y

    # ------------------------------------------------------------------------------------------------- new nodes

    @property
    def _bound_kernel(self) -> tuple[int, ...]:
        """The filter's extents, after the rearrangements so far."""
        weight = torch.empty(self._bound["weight"].meta["val"].shape, device="meta")
        for rearrange in self._rearrangements:
            weight = rearrange(weight)
        return tuple(weight.shape[2:])

    def _conv2d(self, x: fx.Node, geometry: _Geometry) -> fx.Node:
        weight, bias = self._weight(), self._bias()
        numbers = (list(geometry.stride), list(geometry.padding), list(geometry.dilation), geometry.groups)
        y = self._build.call(aten.conv2d.default, x, weight, bias, *numbers)
        y.meta = dict(self._node.meta) | {"val": y.meta["val"]}
        if self._follower is None:
            return y
        rest = self._follower.args[1:]
        activated = self._build.call(self._follower.target, y, *rest, **self._follower.kwargs)
        activated.meta = dict(self._follower.meta) | {"val": activated.meta["val"]}
        return activated

    def _weight(self) -> fx.Node:
        def rearranged(value: torch.Tensor) -> torch.Tensor:
            for rearrange in self._rearrangements:
                value = rearrange(value)
            return value.contiguous()

        old = str(self._bound["weight"].target)
        node = self._build.constant(old, rearranged(get_attribute(self._gm, old).detach()))
        self._path = str(node.target)
        masks = graph_info(self._gm).weight_masks
        if old in masks:
            masks[self._path] = rearranged(masks[old])
        return node

    def _bias(self) -> fx.Node | None:
        if self._bound["bias"] is None or self._phases == 1:
            return self._bound["bias"]
        path = str(self._bound["bias"].target)
        return self._build.constant(path, get_attribute(self._gm, path).detach().repeat_interleave(self._phases))


def _spread(values: Any, rank: int) -> tuple[int, ...]:
    numbers = (values,) if isinstance(values, int) else tuple(values)
    return numbers * rank if len(numbers) == 1 else numbers


def _by_phase(weight: torch.Tensor, axes: Sequence[_Phases], dilation: tuple[int, ...], groups: int) -> torch.Tensor:
    """Return a transposed convolution's weight [in, out / groups, ...] as [out * phases, in / groups, ...]."""
    rank = len(axes)
    inputs, outputs = weight.shape[:2]
    spread = weight.new_zeros(inputs, outputs, *(axis.stride * axis.taps for axis in axes))
    spread[(..., *(slice(0, axis.extent, step) for axis, step in zip(axes, dilation, strict=True)))] = weight
    split = spread.reshape(
        groups, inputs // groups, outputs, *(size for axis in axes for size in (axis.taps, axis.stride))
    )
    taps, phases = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    rows = split.flip(list(taps)).permute(0, 2, *phases, 1, *taps)
    return rows.reshape(groups * outputs * math.prod(axis.stride for axis in axes), -1, *(a.taps for a in axes))
