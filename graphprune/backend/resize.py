"""Lowers resampling and averaging where Relax's own op means something else than torch's.

Resampling is linear and works on one axis at a time, so along each axis it is a constant matrix, and torch itself says
which: its own op, run on the identity. Nearest neighbours need a list of positions only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape
from graphprune.graph import bind_arguments, op_name


def lower_nearest(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``upsample_nearest2d``: Relax's op for whole factors, else torch's choice of rows and columns."""
    bound = bind_arguments(node)
    before, after = static_shape(bound["input"])[2:], static_shape(node)[2:]
    x = lowering.value(bound["input"])
    if all(new % old == 0 for old, new in zip(before, after, strict=True)) and not _has_odd_scale(node):
        return lowering.emit(
            relax.op.image.resize2d(
                x,
                after,
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
        )
    for axis, operator in enumerate(_operators(node), start=2):
        positions = relax.const(operator.argmax(1).numpy())
        x = lowering.emit(relax.op.take(x, positions, axis=axis, mode="clip"))
    return x


def lower_linear_resize(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower bilinear resampling, antialiased or not: Relax's op, or matrices where that would differ from torch's."""
    bound = _arguments(node)
    x = lowering.value(bound["input"])
    plain = op_name(node) == "upsample_bilinear2d" and not _has_odd_scale(node)
    if plain:
        mode = "align_corners" if bound["align_corners"] else "half_pixel"
        return lowering.emit(
            relax.op.image.resize2d(
                x, static_shape(node)[2:], layout="NCHW", method="linear", coordinate_transformation_mode=mode
            )
        )
    rows, columns = (operator.to(node.meta["val"].dtype).numpy() for operator in _operators(node))
    x = lowering.emit(relax.op.matmul(x, relax.const(columns.T.copy())))
    return lowering.emit(relax.op.matmul(relax.const(rows), x))


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments under the names that the ops' ``vec`` overloads have."""
    bound = bind_arguments(node)
    if "scales_h" in bound:
        given = bound["scales_h"] is not None and bound["scales_w"] is not None
        bound |= {"input": bound["self"], "scale_factors": (bound["scales_h"], bound["scales_w"]) if given else None}
    return bound


def _has_odd_scale(node: fx.Node) -> bool:
    """Say whether a scale factor is given that is not exactly the ratio of the sizes; torch then uses the factor."""
    bound = _arguments(node)
    factors = bound["scale_factors"]
    if not factors:
        return False
    sizes = zip(static_shape(bound["input"])[2:], static_shape(node)[2:], factors, strict=True)
    return any(old * factor != new for old, new, factor in sizes)


def _operators(node: fx.Node) -> list[torch.Tensor]:
    """Return, for height and width, the matrix ``[new, old]`` that the op multiplies that axis with."""
    bound = _arguments(node)
    before, after = static_shape(bound["input"])[2:], static_shape(node)[2:]
    factors = bound["scale_factors"] or (None, None)
    return [_operator(node, bound, *axis) for axis in zip(before, after, factors, strict=True)]


def _operator(node: fx.Node, bound: dict[str, Any], old: int, new: int, factor: float | None) -> torch.Tensor:
    identity = torch.eye(old, dtype=torch.float64)[None, None]
    size = [new, old] if factor is None else None
    factors = None if factor is None else [factor, 1.0]
    corners = () if op_name(node) == "upsample_nearest2d" else (bound["align_corners"],)
    resize = getattr(torch.ops.aten, op_name(node)).vec
    return resize(identity, size, *corners, factors)[0, 0]


def lower_grid_sample(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``grid_sampler_2d``; Relax wants the two coordinates before the rows and columns."""
    bound = bind_arguments(node)
    grid = lowering.emit(relax.op.permute_dims(lowering.value(bound["grid"]), [0, 3, 1, 2]))
    return lowering.emit(
        relax.op.image.grid_sample(
            lowering.value(bound["input"]),
            grid,
            method=("bilinear", "nearest", "bicubic")[bound["interpolation_mode"]],
            layout="NCHW",
            padding_mode=("zeros", "border", "reflection")[bound["padding_mode"]],
            align_corners=bound["align_corners"],
        )
    )


def lower_avg_pool2d(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``avg_pool2d``; a ``divisor_override`` is a factor at each position, as Relax's op has no such option."""
    bound = bind_arguments(node)
    source = bound["self"].meta["val"]
    x = lowering.value(bound["self"])
    window, padding = bound["kernel_size"], bound["padding"]
    stride = bound["stride"] or window
    divisor = bound["divisor_override"]
    include = bound["count_include_pad"] or divisor is not None
    if source.dim() == 3:
        x = lowering.emit(relax.op.expand_dims(x, 0))
    y = lowering.emit(relax.op.nn.avg_pool2d(x, window, stride, padding, (1, 1), bound["ceil_mode"], include))
    if divisor is not None:
        ones = torch.ones(1, 1, *source.shape[-2:], dtype=torch.float64)
        wanted, got = (
            F.avg_pool2d(ones, window, stride, padding, bound["ceil_mode"], True, override)
            for override in (divisor, None)
        )
        y = lowering.emit(relax.op.multiply(y, relax.const((wanted / got).to(source.dtype).numpy())))
    return lowering.emit(relax.op.squeeze(y, [0])) if source.dim() == 3 else y
