"""Ops without kernels of ours: logarithms as vectors, resampling on its own, reductions scheduled whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from graphprune.compiler import compile


class Generic(nn.Module):
    """Logarithms of everything, an activation before resampling, and a sum over all axes."""

    def forward(self, x, image):
        return x.log(), F.softplus(x), F.interpolate(F.mish(image), size=(11, 14), mode="bilinear"), image.sum()


def test_generic_ops_equal_torch_and_are_scheduled():
    torch.manual_seed(0)
    nan, infinity = float("nan"), float("inf")
    special = torch.tensor(
        [0.0, -0.0, -1.0, nan, infinity, -infinity, 1.0, 1e-40, 2.0**-126, 3e38, 0.70710677, 1.4142135]
    )
    x = torch.cat([special, torch.rand(500) * 4, torch.logspace(-38, 38, 500)])
    image = torch.rand(2, 3, 6, 8)
    compiled = compile(Generic(), None, (x, image))
    for result, expected in zip(compiled(x, image), Generic()(x, image), strict=True):
        torch.testing.assert_close(result, expected, rtol=3e-7, atol=2e-7, equal_nan=True)
    assert not compiled.report().unscheduled
    names = [call.function for call in compiled.report().calls]
    assert any(name.startswith("resize2d") for name in names), "nothing is computed again for each position"
