"""What a model that cannot be traced is told: the line, the submodule, and what to do instead."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphprune  # noqa: F401  used by the advice that is followed
from graphprune.errors import TraceError
from graphprune.passes import PruneChannels  # noqa: F401
from graphprune.tracing.trace import trace


class Proposals(nn.Module):
    """Keeps boxes by score, as many as there happen to be, and branches on their number."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = x[self.score(x)[:, 0] > 0]
        return kept * 2 if kept.sum() > 1 else kept


class Predictor(nn.Module):
    """Layers side by side: they can be traced, but nothing in them can go."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.boxes = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(x) + self.boxes(x)


class Detector(nn.Module):
    """A backbone that can be traced and proposals that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.predictor, self.proposals = Predictor(), Proposals()

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        return self.proposals(features) * self.predictor(features).sum()


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


class Postprocessed(nn.Module):
    """Fails in a function of its own, after parts in a list of which each can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(input=x)
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("make", [Detector, Postprocessed])
def test_following_the_advice_prunes(make: Callable[[], nn.Module]):
    model = make()
    hint = trace_error(model).hint or ""
    statement = re.search(r"for example (.*), with dynamic_shapes", hint)
    assert statement is not None, hint
    before = sum(p.numel() for p in model.parameters())
    exec(statement[1].replace("...", "PruneChannels(ratio=0.5)"), globals(), {"model": model})
    assert sum(p.numel() for p in model.parameters()) < before
    assert model(torch.randn(5, 4)).dim() == 2


def test_parts_of_which_nothing_can_go_are_not_recommended():
    assert "predictor" not in str(trace_error(Detector()).hint)


def test_inputs_that_do_not_fit_are_told_from_code_that_cannot_be_traced():
    with pytest.raises(TraceError) as caught:
        trace(Detector(), (torch.randn(5, 3),))
    assert "does not run on these inputs either" in caught.value.message
    assert "backbone" not in str(caught.value.hint)


def test_the_graph_up_to_the_failure_is_not_printed(capfd: pytest.CaptureFixture[str]):
    trace_error(Detector())
    assert "def forward" not in capfd.readouterr().err


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
