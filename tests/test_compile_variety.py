"""compile() on small models that are each awkward in one way: equal to torch, or an error that says what and where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphprune import runtime
from graphprune.compiler import compile
from graphprune.errors import BackendError, GraphPruneError, UnsupportedOpError


class Functional(nn.Module):
    """A function of its layers and inputs."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args):
        return self.function(self, *args)


def _linear(function):
    return lambda: Functional(function, left=nn.Linear(4, 6), right=nn.Linear(4, 6))


def _conv(function):
    return lambda: Functional(function, conv=nn.Conv2d(3, 8, 3))


IMAGE = (2, 3, 9, 11)
POSITIONS = torch.tensor([0, -1, 2]), torch.tensor([1, 3, -2])
NOT_A_NUMBER = torch.tensor([[1.0, float("nan"), 3.0, 0.0], [1.0, 2.0, 3.0, 0.0]])

CASES = {
    "add with alpha": (_linear(lambda m, x: F.relu(torch.add(m.left(x), m.right(x), alpha=3))), (3, 4)),
    "sub with alpha": (_linear(lambda m, x: torch.sub(m.left(x), m.right(x), alpha=2)), (3, 4)),
    "residual of another batch": (_conv(lambda m, x: F.relu(m.conv(x) + m.conv(x[:1] * 2))), IMAGE),
    "value before and after relu": (_conv(lambda m, x: (lambda y: F.relu_(y.clone()) - y)(m.conv(x))), IMAGE),
    "nearest to odd size": (_conv(lambda m, x: F.interpolate(m.conv(x), size=(10, 13))), IMAGE),
    "nearest by fraction": (_conv(lambda m, x: F.interpolate(m.conv(x), scale_factor=1.3)), IMAGE),
    "bilinear by fraction": (_conv(lambda m, x: F.interpolate(m.conv(x), scale_factor=1.7, mode="bilinear")), IMAGE),
    "antialiased": (_conv(lambda m, x: F.interpolate(m.conv(x), size=(4, 5), mode="bilinear", antialias=True)), IMAGE),
    "pool with divisor": (
        _conv(lambda m, x: F.avg_pool2d(m.conv(x), 3, 2, 1, ceil_mode=True, divisor_override=5)),
        IMAGE,
    ),
    "grid": (_conv(lambda m, x: F.grid_sample(m.conv(x), x[:, 0, :2, :2].expand(2, 2, 2, 2).tanh())), IMAGE),
    "joint indices": (
        lambda: Functional(lambda m, x, i, j: (x[:, i, j], x[i, :, j], x[..., j])),
        (4, 5, 6),
        *POSITIONS,
    ),
    "not a number": (
        lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5), nn.ReLU6()),
        NOT_A_NUMBER,
    ),
    "exponentials to infinity": (
        lambda: Functional(lambda m, x: (x.exp(), x.sigmoid(), x.clamp(-1, 1), F.relu(x))),
        torch.tensor([[88.5, 88.0, 100.0, -90.0, float("inf"), -float("inf"), float("nan")]]),
    ),
    "half precision": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 1), nn.Flatten(3), nn.ConvTranspose2d(3, 2, 2)).half(),
        (1, 2, 3, 4, 5),
    ),
    "double precision": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(252, 2)
        ).double(),
        IMAGE,
    ),
    "top k": (_linear(lambda m, x: m.left(x).topk(2, -1)), (5, 4)),
}


def _inputs(model, given):
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    return tuple(item if isinstance(item, torch.Tensor) else torch.randn(item).to(dtype) for item in given)


def _leaves(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name, tmp_path):
    torch.manual_seed(0)
    make, *given = CASES[name]
    model = make().eval()
    inputs = _inputs(model, given)
    compiled = compile(model, None, inputs)
    results = _leaves(compiled(*inputs))
    with torch.no_grad():
        expected = _leaves(model(*inputs))
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype and result.shape == wanted.shape
        tolerance = 5e-3 if wanted.dtype == torch.float16 else 2e-5
        torch.testing.assert_close(result, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    loaded = runtime.load(compiled.export(tmp_path / "model.gp"))(*(value.numpy() for value in inputs))
    for result, again in zip(results, _leaves(loaded), strict=True):
        np.testing.assert_array_equal(result.numpy(), again)


def test_what_cannot_be_compiled_says_so():
    x = torch.randn(5, 4)
    with pytest.raises(UnsupportedOpError, match=r"_fft_r2c[\s\S]*node:[\s\S]*hint:"):
        compile(_linear(lambda m, x: torch.fft.rfft(m.left(x)).abs())().eval(), None, (x,))
    with pytest.raises(GraphPruneError):
        compile(_linear(lambda m, x: m.left(x)[x[:, 0] > 0])().eval(), None, (x,))
    with pytest.raises(GraphPruneError, match="data-dependent"):
        compile(_linear(lambda m, x: m.left(x) if x.sum() > 0 else m.right(x))().eval(), None, (x,))


def test_importer_failures_name_the_node_and_its_line():
    def put(m, x):
        y = m.left(x).clone()
        y[torch.tensor([0, 2])] = x[0, 0]
        return y

    with pytest.raises(BackendError, match=r"index_put[\s\S]*node:[\s\S]*source: .*test_compile_variety"):
        compile(_linear(put)().eval(), None, (torch.randn(5, 4),))


def test_threads_share_one_compiled_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8)).eval()
    inputs = [torch.randn(7, 64) for _ in range(40)]
    compiled = compile(model, None, (inputs[0],))
    alone = [compiled(x) for x in inputs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(compiled, inputs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
