"""PruneExperts: experts leave with their rows of the router, and never fewer stay than are chosen."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphprune.analysis import analyze
from graphprune.errors import EmptyAxisError
from graphprune.interpret import run_masked
from graphprune.passes import PruneExperts
from graphprune.tracing.trace import trace
from tests.random_models import redraw


class Mixture(nn.Module):
    """Each token goes to the two experts with the largest gates."""

    def __init__(self, experts: int = 6) -> None:
        super().__init__()
        self.router = nn.Linear(8, experts)
        self.up, self.down = nn.Parameter(torch.zeros(experts, 8, 5)), nn.Parameter(torch.zeros(experts, 5, 8))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
        hidden = torch.einsum("td,tkdh->tkh", x, self.up[chosen]).relu()
        return (torch.einsum("tkh,tkhd->tkd", hidden, self.down[chosen]) * weights.unsqueeze(-1)).sum(1)


def test_experts_leave_and_at_least_the_chosen_number_stays():
    torch.manual_seed(0)
    model, x = Mixture().eval(), torch.randn(9, 8)
    redraw(model)
    gm = trace(model, (x,))
    found = analyze(gm)
    (experts,) = [dimension for dimension in found.dimensions if dimension.kind == "expert"]
    for ratio, kept in ((0.5, 3), (0.9, 2)):
        prune = PruneExperts(ratio=ratio)
        small = prune(gm)
        assert small.get_parameter("up").shape[0] == small.get_parameter("router.weight").shape[0] == kept
        expected = run_masked(gm, found.typing, found.masks(prune.plan(gm)), x)
        torch.testing.assert_close(small(x), expected)
    with pytest.raises(EmptyAxisError, match="chooses 2"):
        found.plan({experts.name: np.arange(6) == 3})
