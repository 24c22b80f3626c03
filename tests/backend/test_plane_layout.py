"""Which planes stay in tiles between sparse 1x1 convolutions, and that the results are torch's however they travel."""

import torch
from torch import nn

import graphprune as gp
from graphprune.backend.cpu import CpuBackend
from graphprune.backend.kernels.contract import PlaneTile
from graphprune.errors import BackendError
from graphprune.passes import PruneWeights

WIDTH = 24


class Bottlenecks(nn.Module):
    """Residual blocks of a narrow 3x3 between 1x1s, and a strided projection whose result is a residual only."""

    def __init__(self, blocks=3):
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(WIDTH if i else 16, 16, 1) for i in range(blocks))
        self.inner = nn.ModuleList(nn.Conv2d(16, 16, 3, 1 if i else 2, 1) for i in range(blocks))
        self.expand = nn.ModuleList(nn.Conv2d(16, WIDTH, 1) for _ in range(blocks))
        self.project = nn.Conv2d(16, WIDTH, 1, 2)

    def forward(self, x):
        for i, (reduce, inner, expand) in enumerate(zip(self.reduce, self.inner, self.expand, strict=True)):
            identity = x if i else self.project(x)
            x = (expand(inner(reduce(x).relu()).relu()) + identity).relu()
        return x


class Fork(nn.Module):
    """A result that 1x1s read, and pooling, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.second(x) + nn.functional.max_pool2d(x, 3, 1, 1), self.third(self.second(x).relu())


def notes_of(model, x):
    """Compile with nine tenths of the weights zero, compare with torch, and return which operands are in tiles."""
    graph = gp.prune(model.eval(), PruneWeights(sparsity=0.9, scope="layer"), (x,))
    fast = gp.compile(graph)
    with torch.no_grad():
        expected, found = graph(x), fast(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    return {layer.name.removesuffix(".weight"): layer.note.partition("in tiles: ")[2] for layer in fast.report().layers}


def test_residual_stream_stays_in_tiles():
    notes = notes_of(Bottlenecks(), torch.randn(2, 16, 18, 18))
    assert notes == {
        "project": "", "reduce.0": "", "inner.0": "", "expand.0": "out",
        "reduce.1": "x", "inner.1": "", "expand.1": "residual out",
        "reduce.2": "x", "inner.2": "", "expand.2": "residual",
    }  # fmt: skip


def test_what_others_read_stays_as_planes():
    notes = notes_of(Fork(), torch.randn(1, 16, 10, 10))
    assert notes["first"] == ""
    assert notes["third"] == "x"


def test_a_reader_that_has_no_sparse_kernel_after_all_gets_planes(monkeypatch):
    usual = CpuBackend.conv2d

    def declines(self, weight, bias, shape, *arguments, sparse, tiled=None, **options):
        if tiled is not None and tiled.x:
            raise BackendError("not today")
        return usual(self, weight, bias, shape, *arguments, sparse=sparse, tiled=tiled, **options)

    monkeypatch.setattr(CpuBackend, "conv2d", declines)
    notes = notes_of(Bottlenecks(2), torch.randn(1, 16, 18, 18))
    assert notes["expand.0"] == "out"
    assert notes["reduce.1"] == ""


def test_layers_with_tiles_of_other_widths_share_none(monkeypatch):
    usual = CpuBackend.plane_tile

    def varies(weight_shape, shape, target, choice):
        found = usual(weight_shape, shape, target, choice)
        if found is None or weight_shape[1] != WIDTH:
            return found
        return PlaneTile(type(found.tile)(1, found.tile.grid_columns, 1, found.tile.lanes, found.tile.lanes), True)

    monkeypatch.setattr(CpuBackend, "plane_tile", staticmethod(varies))
    notes = notes_of(Bottlenecks(2), torch.randn(1, 16, 18, 18))
    assert set(notes.values()) == {""}
