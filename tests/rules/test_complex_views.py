"""Pairs seen as complex numbers in memory that shrinks: the op demands even strides, whatever widths are kept."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphprune.analysis import analyze
from graphprune.interpret import run_masked
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.random_models import redraw


class RotatedPiece(nn.Module):
    """One projection holds a free part and a part that is rotated as complex numbers, as in latent attention."""

    def __init__(self, free_first: bool) -> None:
        super().__init__()
        self.up, self.down, self.free_first = nn.Linear(5, 6 + 8), nn.Linear(6 + 8, 3), free_first
        self.register_buffer("angles", torch.randn(7, 4))

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.up(x).split([6, 8] if self.free_first else [8, 6], dim=-1)
        free, pairs = pieces if self.free_first else pieces[::-1]
        turned = torch.view_as_complex(pairs.unflatten(-1, (4, 2))) * torch.polar(torch.ones(7, 4), self.angles)
        return self.down(torch.cat([free, torch.view_as_real(turned).flatten(-2)], dim=-1))


@pytest.mark.parametrize("free_first", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kept", [1, 2, 3, 5])
def test_any_width_beside_the_pairs(free_first, batch, kept):
    torch.manual_seed(0)
    model, x = RotatedPiece(free_first).eval(), torch.randn(batch, 7, 5)
    redraw(model)
    gm = trace(model, (x,))
    found = analyze(gm)
    plan = found.plan({d.name: np.arange(d.size) < kept for d in found.dimensions if d.size == 6})
    small = shrink(gm, plan, analysis=found)
    assert small.get_parameter("down.weight").shape == (3, kept + 8)
    torch.testing.assert_close(small(x), run_masked(gm, found.typing, found.masks(plan), x))
    torch.export.export(small, (x,))


def test_pairs_shrink_together():
    torch.manual_seed(0)
    model, x = RotatedPiece(True).eval(), torch.randn(2, 7, 5)
    redraw(model)
    gm = trace(model, (x,))
    found = analyze(gm)
    (pairs,) = [d for d in found.dimensions if d.size == 4]
    plan = found.plan({d.name: np.arange(d.size) % 2 == 0 for d in found.dimensions})
    small = shrink(gm, plan, analysis=found)
    assert small.get_buffer("angles").shape == (7, 2) and pairs.members
    torch.testing.assert_close(small(x), run_masked(gm, found.typing, found.masks(plan), x))
