"""Ops over spatial axes: pooling, resampling, pixel shuffles, windows. Space is pinned, channels pass."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprune.axes import product, size_of
from graphprune.rules.context import Inference, Resizing, Typed, entry_at, shape_of
from graphprune.rules.registry import Arguments, register, resize, rule


def _spatial(rank: int) -> Any:
    def infer(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
        name = "self" if "self" in arguments else "input"
        axes = context.axes(arguments[name])
        reason = f"spatial axis of {str(node.target).removeprefix('aten.')}"
        context.pin_all(axes[-rank:], reason)
        value = node.meta["val"]
        first = value[0] if isinstance(value, (tuple, list)) else value
        space = [context.solver.pinned(size, reason) for size in shape_of(first)[-rank:]]
        result = [*axes[:-rank], *space]
        return [result for _ in value] if isinstance(value, (tuple, list)) else result

    return infer


def _names(patterns: str, rank: int) -> list[str]:
    return [f"{pattern}{rank}d" for pattern in patterns.split()]


def _pool(rank: int) -> Any:
    def infer(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
        axes = context.axes(arguments["self"])
        reason = f"spatial axis of {str(node.target).removeprefix('aten.')}"
        sizes = shape_of(node.meta["val"])
        for d in range(rank):
            kernel, padding = entry_at(arguments["kernel_size"], d, 1), entry_at(arguments.get("padding"), d, 0)
            if kernel == 1 and padding == 0 and entry_at(arguments.get("stride"), d, kernel) == 1:
                continue
            context.pin(axes[d - rank], reason)
            axes[d - rank] = context.solver.pinned(sizes[d - rank], reason)
        return axes

    return infer


_POOLS = "adaptive_avg_pool adaptive_max_pool"
_PADS = "reflection_pad replication_pad"
_MODES = {1: "linear", 2: "bilinear bicubic", 3: "trilinear"}

for _rank in (1, 2, 3):
    _ops = _names(_POOLS, _rank) + _names(_PADS, _rank)
    _ops += _names("upsample_nearest _upsample_nearest_exact", _rank)
    _ops += _names(" ".join(f"upsample_{mode}" for mode in _MODES[_rank].split()), _rank)
    if _rank > 1:
        _ops += [f"max_pool{_rank}d_with_indices", f"_adaptive_avg_pool{_rank}d"]
    if _rank == 1:
        _ops += ["max_pool1d_with_indices"]
    if _rank == 2:
        _ops += ["_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"]
    register(_ops, "spatial", "n c S -> n c S' (space is pinned)", _spatial(_rank))
    _ops = _names("max_pool avg_pool", _rank)
    register(_ops, "spatial", "n c S -> n c S' (space is pinned but where the window is one position)", _pool(_rank))


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c S, n s K -> n c s (space and coordinates are pinned, sampled positions pass)"""
    axes, grid = context.axes(arguments["input"]), context.axes(arguments["grid"])
    context.unify(axes[0], grid[0])
    context.pin_all([*axes[2:], grid[-1]], "spatial axis of grid_sampler")
    return [*axes[:2], *grid[1:-1]]


@rule("torchvision::roi_align", "torchvision::roi_pool")
def pool_regions(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c S, r K -> r c S' (space, the images and the corners of regions are pinned)"""
    batch, channels, *space = context.axes(arguments["input"])
    regions, corners = context.axes(arguments["rois"])
    context.pin_all([batch, *space, corners], "positions of regions")
    value = node.meta["val"]
    pooled = [
        [regions, channels, *context.constant(result, "positions of regions")[2:]]
        for result in (value if isinstance(value, (tuple, list)) else [value])
    ]
    return pooled if isinstance(value, (tuple, list)) else pooled[0]


@rule("max_unpool2d", "max_unpool3d")
def max_unpool(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c S, n c S -> n c S' (space is pinned)"""
    axes, indices = context.axes(arguments["self"]), context.axes(arguments["indices"])
    rank = 2 if "2d" in str(node.target) else 3
    context.broadcast([axes, indices], len(axes))
    context.pin_all(axes[-rank:], "spatial axis of max_unpool")
    space = shape_of(node.meta["val"])[-rank:]
    return [*axes[:-rank], *(context.solver.pinned(size, "spatial axis of max_unpool") for size in space)]


@rule("fractional_max_pool2d", "fractional_max_pool3d")
def fractional_max_pool(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n c S, n c R -> n c S' (space and samples are pinned)"""
    axes, samples = context.axes(arguments["self"]), context.axes(arguments["random_samples"])
    rank = 2 if "2d" in str(node.target) else 3
    context.pin_all([*axes[-rank:], samples[-1]], "spatial axis of fractional_max_pool")
    for a, b in zip(axes[:-rank], samples[-1 - len(axes[:-rank]) : -1], strict=True):
        context.unify(a, b)
    space = shape_of(node.meta["val"][0])[-rank:]
    result = [*axes[:-rank], *(context.solver.pinned(size, "spatial axis of fractional_max_pool") for size in space)]
    return [result, list(result)]


@rule("pixel_shuffle")
def pixel_shuffle(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... (c R R) H W -> ... c H' W'"""
    axes, factor = context.axes(arguments["self"]), arguments["upscale_factor"]
    context.pin_all(axes[-2:], "spatial axis of pixel_shuffle")
    *_, channels, height, width = shape_of(node.meta["val"])
    channel = context.solver.leaf(channels)
    pixels = context.solver.pinned(factor * factor, "position within a pixel block")
    context.unify(axes[-3], product([channel, pixels]))
    space = [context.solver.pinned(size, "spatial axis of pixel_shuffle") for size in (height, width)]
    return [*axes[:-3], channel, *space]


@rule("pixel_unshuffle")
def pixel_unshuffle(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... c H W -> ... (c R R) H' W'"""
    axes, factor = context.axes(arguments["self"]), arguments["downscale_factor"]
    context.pin_all(axes[-2:], "spatial axis of pixel_unshuffle")
    pixels = context.solver.pinned(factor * factor, "position within a pixel block")
    space = [context.solver.pinned(size, "spatial axis of pixel_unshuffle") for size in shape_of(node.meta["val"])[-2:]]
    return [*axes[:-3], product([axes[-3], pixels]), *space]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n (g c) ... -> n (c g) ..."""
    axes, groups = context.axes(arguments["self"]), arguments["groups"]
    size = size_of(axes[1])
    assert isinstance(size, int)
    group, inner = context.solver.refine(axes[1], (groups, size // groups))
    context.notes[node.name] = group
    return [axes[0], product([inner, group]), *axes[2:]]


@resize("channel_shuffle", "native_channel_shuffle")
def resize_channel_shuffle(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    arguments["groups"] = resizing.count(resizing.notes[node.name])


@rule("im2col")
def im2col(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... c H W -> ... (c K) L"""
    axes = context.axes(arguments["self"])
    context.pin_all(axes[-2:], "spatial axis of im2col")
    *_, rows, length = shape_of(node.meta["val"])
    channels = size_of(axes[-3])
    window = context.solver.pinned(rows // channels, "position in a window")  # type: ignore[operator]
    return [*axes[:-3], product([axes[-3], window]), context.solver.pinned(length, "position of a window")]


@rule("col2im")
def col2im(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... (c K) L -> ... c H W"""
    axes = context.axes(arguments["self"])
    context.pin(axes[-1], "position of a window")
    *_, channels, height, width = shape_of(node.meta["val"])
    channel = context.solver.leaf(channels)
    window = context.solver.pinned(size_of(axes[-2]) // channels, "position in a window")  # type: ignore[operator]
    context.unify(axes[-2], product([channel, window]))
    space = [context.solver.pinned(size, "spatial axis of col2im") for size in (height, width)]
    return [*axes[:-2], channel, *space]


@rule("unfold")
def unfold(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """... S ... -> ... S' ... W (sliding windows: pinned)"""
    axes = context.axes(arguments["self"])
    d = arguments["dimension"] % len(axes)
    context.pin(axes[d], "sliding windows")
    sizes = shape_of(node.meta["val"])
    axes[d] = context.solver.pinned(sizes[d], "sliding windows")
    return [*axes, context.solver.pinned(sizes[-1], "sliding windows")]
