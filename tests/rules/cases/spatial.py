"""Pooling, resampling, windows."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision  # noqa: F401  registers its ops

from tests.rules.cases.base import aten, case, overload

_SPACES: list[tuple[str, Callable[..., Any], int]] = [
    ("max_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("avg_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("adaptive_avg_pool", lambda op, x, r: op(x, [2] * r), 3),
    ("adaptive_max_pool", lambda op, x, r: op(x, [2] * r)[0], 3),
]
for _rank in (1, 2, 3):
    _shape = (2, 3, 4, 5, 4)[: 2 + _rank]
    for _pattern, _call, _ in _SPACES:
        _name = f"{_pattern}{_rank}d"
        case(_name, lambda x, op=overload(_name), call=_call, r=_rank: call(op, x, r), _shape, free=5)
    if _rank > 1:
        _name = f"_adaptive_avg_pool{_rank}d"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [2] * r), _shape, free=5)
        _name = f"max_pool{_rank}d_with_indices"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [2] * r)[0], _shape, free=5)
    for _pattern in ("reflection_pad", "replication_pad"):
        _name = f"{_pattern}{_rank}d"
        case(_name, lambda x, op=overload(_name), r=_rank: op(x, [1] * (2 * r)), _shape, free=5)
    _modes = {1: ("nearest", "linear"), 2: ("nearest", "bilinear", "bicubic"), 3: ("nearest", "trilinear")}[_rank]
    for _mode in _modes:
        _name, _flag = f"upsample_{_mode}{_rank}d", () if _mode == "nearest" else (False,)
        case(_name, lambda x, op=overload(_name), f=_flag, r=_rank: op(x, [7] * r, *f), _shape, free=5)
    _name = f"_upsample_nearest_exact{_rank}d"
    case(_name, lambda x, op=overload(_name), r=_rank: op(x, [7] * r), _shape, free=5)
for _name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
    case(_name, lambda x, op=overload(_name): op(x, [7, 6], False), (2, 3, 4, 5), free=5)
case("upsample_by_factor", lambda x: aten.upsample_bilinear2d.vec(x, None, False, [2.0, 2.0]), (2, 3, 4, 5), free=5)
for _name in ("grid_sampler", "grid_sampler_2d"):
    case(_name, lambda x, g, op=overload(_name): op(x, g, 0, 0, False), (2, 3, 4, 5), (2, 6, 7, 2), free=5 + 6 + 7)
case("grid_sampler_3d", lambda x, g: aten.grid_sampler_3d.default(x, g, 0, 0, False), (2, 3, 4, 4, 5), (2, 2, 3, 4, 3),
     free=5 + 2 + 3 + 4)  # fmt: skip
case("pixel_shuffle", lambda x: aten.pixel_shuffle.default(x, 2), (2, 12, 3, 3), free=5)
case("pixel_unshuffle", lambda x: aten.pixel_unshuffle.default(x, 2), (2, 3, 4, 4), free=5)
case("channel_shuffle", lambda x: aten.channel_shuffle.default(x, 3), (2, 12, 2, 2), free=2 + 3 + 4 + 2 + 2)
case("native_channel_shuffle", lambda x: aten.native_channel_shuffle.default(x, 3), (2, 12, 2, 2), free=13)
case("im2col", lambda x: aten.im2col.default(x, [2, 2], [1, 1], [0, 0], [1, 1]), (2, 3, 4, 4), free=5)
case("col2im", lambda x: aten.col2im.default(x, [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]), (2, 12, 9), free=5)
case("max_pool2d_rows", lambda x: aten.max_pool2d.default(x, [2, 1], [2, 1]), (2, 3, 4, 5), free=10)
case("avg_pool2d_rows", lambda x: aten.avg_pool2d.default(x, [2, 1], [2, 1], [0], True), (2, 3, 4, 5), free=10)
case("unfold", lambda x: aten.unfold.default(x, 1, 3, 2), (3, 9), free=3)
case("max_pool1d_with_indices", lambda x: aten.max_pool1d_with_indices.default(x, [2])[0], (2, 3, 4), free=5)
case("_upsample_lanczos2d_aa", lambda x: aten._upsample_lanczos2d_aa.default(x, [7, 6], False), (2, 3, 4, 5), free=5)
_PLACES = torch.tensor([0, 2, 5, 7]).view(1, 1, 2, 2).expand(2, 3, 2, 2).clone()
case("max_unpool2d", lambda x, i: aten.max_unpool2d.default(x, i, [4, 4]), (2, 3, 2, 2), _PLACES, free=5)
case("max_unpool3d", lambda x, i: aten.max_unpool3d.default(x, i, [2, 4, 4], [2, 2, 2], [0, 0, 0]), (2, 3, 1, 2, 2),
     _PLACES.unsqueeze(2), free=5)  # fmt: skip
case("fractional_max_pool2d", lambda x, s: aten.fractional_max_pool2d.default(x, [2, 2], [2, 2], s)[0], (2, 3, 5, 5),
     (2, 3, 2), free=5)  # fmt: skip
case("fractional_max_pool3d", lambda x, s: aten.fractional_max_pool3d.default(x, [2, 2, 2], [2, 2, 2], s)[0],
     (2, 3, 5, 5, 5), (2, 3, 3), free=5)  # fmt: skip
_REGIONS = torch.tensor([[0.0, 0, 0, 3, 3], [1, 1, 1, 4, 4]], dtype=torch.float64)
_regions = torch.ops.torchvision
case("roi_align", lambda x, r: _regions.roi_align.default(x, r, 1.0, 2, 2, 2, True), (2, 4, 5, 5), _REGIONS, free=6)
case("roi_pool", lambda x, r: _regions.roi_pool.default(x, r, 1.0, 2, 2)[0], (2, 4, 5, 5), _REGIONS, free=6)
