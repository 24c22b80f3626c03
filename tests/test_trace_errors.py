"""What a model that cannot be traced is told: the line, the submodule, and what to do instead."""

import pytest
import torch
from torch import Tensor, nn

from graphprune.errors import TraceError
from graphprune.tracing.trace import trace


class Proposals(nn.Module):
    """Keeps boxes by score, as many as there happen to be, and branches on their number."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = x[self.score(x)[:, 0] > 0]
        return kept * 2 if kept.sum() > 1 else kept


class Detector(nn.Module):
    """A backbone that can be traced and proposals that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.proposals = Proposals()

    def forward(self, x: Tensor) -> Tensor:
        return self.proposals(self.backbone(x))


def trace_error(model: nn.Module) -> TraceError:
    with pytest.raises(TraceError) as caught:
        trace(model, (torch.randn(5, 4),))
    return caught.value


def test_data_dependent_code_is_shown_with_its_submodule():
    error = trace_error(Detector())
    assert "could not trace Detector (in its submodule 'proposals')" in error.message
    assert error.source is not None
    assert "test_trace_errors.py" in error.source
    assert "kept.sum() > 1" in error.source


def test_the_part_that_can_be_traced_is_named_and_works():
    model = Detector()
    hint = trace_error(model).hint
    assert hint is not None
    assert "model.backbone = small" in hint
    model.backbone = trace(model.backbone, (torch.randn(5, 4),))  # type: ignore[assignment]
    assert model(torch.randn(5, 4)).shape[1] == 6


def test_scripted_submodules_are_named():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())))
    error = trace_error(model)
    assert "its submodule '1' is a torch.jit module" in error.message
    assert error.hint is not None
    assert "without torch.jit.script" in error.hint


def test_long_reports_are_cut():
    class Long(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("word " * 1000)

    error = trace_error(Long())
    assert len(error.message) < 400
    assert "raise ValueError" in (error.source or "")
