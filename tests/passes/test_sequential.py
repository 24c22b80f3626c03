"""Sequential: order, history, checks and errors."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from graphprune.errors import MaskError, PassError, VerificationError
from graphprune.graph import graph_info
from graphprune.pass_base import Pass
from graphprune.passes.fold_batch_norm import FoldBatchNorm
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.sequential import Sequential
from graphprune.tracing.trace import trace


@dataclass(frozen=True)
class Refuse(Pass):
    def run(self, gm):
        node = next(node for node in gm.graph.nodes if node.op == "call_function")
        raise MaskError("mask has 3 entries, dimension has 4", node=node, axis=1, hint="count again")


@dataclass(frozen=True)
class PredictWrongly(Pass):
    def run(self, gm):
        node = next(node for node in gm.graph.nodes if node.op == "call_function")
        node.meta["val"] = node.meta["val"][:, :1]
        return gm, {}


@dataclass(frozen=True)
class BreakShapes(Pass):
    def run(self, gm):
        node = next(node for node in gm.graph.nodes if node.op == "get_attr")
        node.meta["val"] = None
        setattr(gm, "0", nn.Module())
        getattr(gm, "0").weight = nn.Parameter(torch.zeros(2, 9))
        getattr(gm, "0").bias = nn.Parameter(torch.zeros(2))
        return gm, {}


@pytest.fixture
def gm():
    return trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU()).eval(), (torch.randn(3, 4),))


def test_passes_run_in_order_and_leave_records(gm):
    sequence = Sequential(FoldBatchNorm(), FuseEpilogues())
    result = sequence(gm)
    assert [record.spec for record in graph_info(result).history] == ["fold-batch-norm", "fuse-epilogues"]
    assert all(record.seconds > 0 for record in graph_info(result).history)
    assert graph_info(gm).history == []
    assert sequence.spec() == "fold-batch-norm,fuse-epilogues"


def test_empty_sequence_changes_nothing(gm):
    assert Sequential()(gm) is gm


def test_error_names_the_pass_and_keeps_what_it_said(gm):
    with pytest.raises(PassError, match="pass 2 of 2, refuse, failed: MaskError: mask has 3") as caught:
        Sequential(FoldBatchNorm(), Refuse())(gm)
    error = caught.value
    assert isinstance(error.__cause__, MaskError)
    assert (error.node, error.axis, error.hint) == ("linear", 1, "count again")
    assert error.source is not None


@pytest.mark.parametrize(
    ("broken", "message"), [(PredictWrongly(), "predicted shape"), (BreakShapes(), "no longer runs")]
)
def test_wrong_shapes_are_caught(gm, broken, message):
    with pytest.raises(PassError, match=message) as caught:
        Sequential(broken)(gm)
    assert isinstance(caught.value.__cause__, VerificationError)


def test_only_passes_are_accepted():
    with pytest.raises(PassError, match="takes passes"):
        Sequential([FoldBatchNorm()])  # type: ignore[arg-type]
