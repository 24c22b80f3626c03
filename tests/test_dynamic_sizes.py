"""Axes whose size is open when tracing: products with heads stay prunable, sums are pinned, both stay right."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional

from graphprune.analysis import analyze
from graphprune.interpret import run_masked
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace


class PromptTokens(nn.Module):
    """Learned tokens joined to a sequence of open length, which is then folded into the batch."""

    def __init__(self):
        super().__init__()
        self.prompt, self.up, self.out = nn.Parameter(torch.randn(1, 4, 6)), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.cat([self.prompt.expand(x.shape[0], -1, -1), x], 1)
        n, t, _ = x.shape
        return self.out(self.up(x).reshape(n * t, 5).relu().view(n, t, 5).sum(1))


class HeadsInTheBatch(nn.Module):
    """Heads folded into an open batch, normalised there, and unfolded."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.out = nn.Linear(6, 12), nn.LayerNorm(3), nn.Linear(12, 2)

    def forward(self, x):
        n = x.shape[0]
        return self.out(self.norm(self.up(x).view(n * 4, 3)).view(n, 12))


class RowsJoinedToTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.rows, self.out = nn.Linear(6, 12), nn.Parameter(torch.randn(3, 2)), nn.Linear(2, 2)

    def forward(self, x):
        x = torch.cat([self.up(x).view(x.shape[0] * 6, 2), self.rows], 0)
        return self.out(functional.pad(x, (0, 0, 1, 0)).relu()).sum(0)


class CountsElements(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.out = nn.Linear(6, 12), nn.Linear(12, 2)

    def forward(self, x):
        y = self.up(x)
        return self.out(y) * y.numel() + y.shape[0] * y.shape[1]


class RoundedDown(nn.Module):
    """Sizes that torch writes differently the second time: a stride over a multiple of the open size, as in FPNs."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 3, 2, 1)

    def forward(self, x):
        x = self.up(x)
        return self.down(functional.max_pool2d(x, 3, 2, 1))


@pytest.mark.parametrize(
    ("model", "example", "dynamic_axes", "free"),
    [
        (PromptTokens, (2, 7, 6), (1,), [5]),
        (PromptTokens, (2, 7, 6), (0, 1), [5]),
        (HeadsInTheBatch, (3, 6), (0,), [3, 4]),
        (RowsJoinedToTheBatch, (3, 6), (0,), [2]),
        (CountsElements, (3, 6), (0,), [12]),
    ],
)
def test_open_sizes(model, example, dynamic_axes, free):
    torch.manual_seed(0)
    x = torch.randn(example)
    dynamic_shapes = ({d: Dim(f"axis{d}", min=2, max=50) for d in dynamic_axes},)
    gm = trace(model().eval(), (x,), dynamic_shapes=dynamic_shapes)
    found = analyze(gm)
    assert sorted(d.size for d in found.dimensions) == free, str(found)
    plan = found.plan({d.name: np.arange(d.size) % 3 != 1 for d in found.dimensions})
    small = shrink(gm, plan, analysis=found)
    for inputs in (x, torch.cat([x, x], dynamic_axes[0])):
        with torch.no_grad():
            expected = run_masked(gm, found.typing, found.masks(plan), inputs)
            torch.testing.assert_close(small(inputs), expected, rtol=1e-4, atol=1e-4)
    torch.export.export(small, (x,), dynamic_shapes=dynamic_shapes)


def test_sizes_that_are_rounded_down():
    torch.manual_seed(0)
    rows = 32 * Dim("rows", min=1, max=9)
    gm = trace(RoundedDown().eval(), (torch.randn(1, 3, 64, 32),), dynamic_shapes=({2: rows},))
    found = analyze(gm)
    plan = found.plan({d.name: np.arange(d.size) % 3 != 1 for d in found.dimensions})
    small = shrink(gm, plan, analysis=found)
    x = torch.randn(1, 3, 96, 32)
    with torch.no_grad():
        expected = run_masked(gm, found.typing, found.masks(plan), x)
        torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-4)
