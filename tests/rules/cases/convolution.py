"""Convolutions."""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  registers its ops

from tests.rules.cases.base import aten, case

case("conv1d", lambda x, w, b: aten.conv1d.default(x, w, b, [2], [1]), (2, 4, 9), (6, 4, 3), (6,), free=12)
case("conv2d", lambda x, w, b: aten.conv2d.default(x, w, b), (2, 4, 5, 5), (6, 4, 3, 3), (6,), free=12)
case("conv2d_pointwise", lambda x, w: aten.conv2d.default(x, w), (2, 4, 3, 5), (6, 4, 1, 1), free=20)
case("conv2d_one_sample", lambda x, w: aten.conv2d.default(x, w), (4, 5, 5), (6, 4, 3, 3), free=10)
case("conv2d_same", lambda x, w: aten.conv2d.padding(x, w, None, [1], "same"), (2, 4, 5, 5), (6, 4, 3, 3), free=12)
case(
    "conv2d_groups", lambda x, w, b: aten.conv2d.default(x, w, b, [1], [1], [1], 3),
    (2, 6, 5, 5), (12, 2, 3, 3), (12,), free=2 + 3 + 2 + 4,
)  # fmt: skip
case(
    "conv2d_depthwise", lambda x, w: aten.conv2d.default(x, w, None, [1], [1], [1], 6),
    (2, 6, 5, 5), (12, 1, 3, 3), free=2 + 6 + 2,
)  # fmt: skip
case("conv3d", lambda x, w: aten.conv3d.default(x, w), (2, 4, 3, 3, 3), (6, 4, 2, 2, 2), free=12)
case(
    "convolution", lambda x, w: aten.convolution.default(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2),
    (2, 4, 5, 5), (6, 2, 3, 3), free=2 + 2 + 2 + 3,
)  # fmt: skip
case(
    "convolution_transposed",
    lambda x, w: aten.convolution.default(x, w, None, [2, 2], [0, 0], [1, 1], True, [0, 0], 2),
    (2, 4, 3, 3), (4, 3, 2, 2), free=2 + 2 + 2 + 3,
)  # fmt: skip
case("conv_transpose1d", lambda x, w: aten.conv_transpose1d.default(x, w), (2, 4, 5), (4, 6, 3), free=12)
case(
    "conv_transpose2d", lambda x, w, b: aten.conv_transpose2d.input(x, w, b, [2, 2], [0, 0], [0, 0], 2),
    (2, 4, 3, 3), (4, 3, 2, 2), (6,), free=2 + 2 + 2 + 3,
)  # fmt: skip
case("conv_transpose3d", lambda x, w: aten.conv_transpose3d.input(x, w), (2, 4, 2, 2, 2), (4, 6, 2, 2, 2), free=12)
case("_weight_norm", lambda v, g: aten._weight_norm.default(v, g, 0), (4, 3, 2), (4, 1, 1), free=9, zeros_agree=False)
case("conv2d_same_pointwise", lambda x, w: aten.conv2d.padding(x, w, None, [1], "same"), (2, 4, 3, 5), (6, 4, 1, 1),
     free=20)  # fmt: skip
case("_convolution_mode", lambda x, w: aten._convolution_mode.default(x, w, None, [1, 1], "same", [1, 1], 2),
     (2, 4, 5, 5), (6, 2, 3, 3), free=2 + 2 + 2 + 3)  # fmt: skip
case(
    "_convolution",
    lambda x, w: aten._convolution.default(x, w, None, [1], [0], [1], False, [0], 1, False, False, True, True),
    (2, 4, 9), (6, 4, 3), free=12,
)  # fmt: skip
case("conv1d_groups", lambda x, w: aten.conv1d.default(x, w, None, [1], [2], [2], 2), (2, 4, 9), (6, 2, 3), free=9)
case("conv3d_groups", lambda x, w: aten.conv3d.default(x, w, None, [1] * 3, [1] * 3, [1] * 3, 2), (2, 4, 3, 3, 3),
     (6, 2, 3, 3, 3), free=9)  # fmt: skip
case("conv_transpose1d_groups", lambda x, w: aten.conv_transpose1d.default(x, w, None, [2], [0], [0], 2), (2, 4, 5),
     (4, 3, 3), free=9)  # fmt: skip
case("conv_transpose3d_groups",
     lambda x, w, b: aten.conv_transpose3d.input(x, w, b, [2] * 3, [0] * 3, [0] * 3, 2), (2, 4, 2, 2, 2),
     (4, 3, 2, 2, 2), (6,), free=9)  # fmt: skip
case("_weight_norm_interface", lambda v, g: aten._weight_norm_interface.default(v, g, 0)[0], (4, 3, 2), (4, 1, 1),
     free=9, zeros_agree=False)  # fmt: skip
case("conv2d_of_all_columns", lambda x, w: aten.conv2d.default(x, w), (2, 1, 7, 4), (6, 1, 3, 4), free=2 + 6 + 4)
case("conv2d_of_all_positions", lambda x, w: aten.conv2d.default(x, w, None, [2, 1], [0, 0], [1, 1], 4), (2, 4, 3, 5),
     (4, 1, 3, 5), free=2 + 4 + 3 + 5)  # fmt: skip
case("conv2d_of_all_positions_and_padding", lambda x, w: aten.conv2d.default(x, w, None, [9], [1]), (2, 4, 3, 3),
     (6, 4, 3, 3), free=12)  # fmt: skip
_deformed = torch.ops.torchvision.deform_conv2d.default
case(
    "deform_conv2d", lambda x, w, o, m, b: _deformed(x, w, o, m, b, 1, 1, 1, 1, 1, 1, 1, 1, True),
    (2, 4, 5, 5), (6, 4, 3, 3), (2, 18, 5, 5), (2, 9, 5, 5), (6,), free=2 + 4 + 6,
)  # fmt: skip
case(
    "deform_conv2d_groups", lambda x, w, o, m, b: _deformed(x, w, o, m, b, 1, 1, 0, 0, 1, 1, 2, 1, False),
    (2, 6, 5, 5), (4, 3, 3, 3), (2, 18, 3, 3), torch.zeros(2, 1).double(), (4,), free=2 + 2 + 3 + 2,
)  # fmt: skip
case(
    "deform_conv2d_offset_groups", lambda x, w, o, m, b: _deformed(x, w, o, m, b, 1, 1, 0, 0, 1, 1, 1, 2, False),
    (2, 4, 5, 5), (6, 4, 3, 3), (2, 36, 3, 3), torch.zeros(2, 1).double(), (6,), free=2 + 6,
)  # fmt: skip
