"""compile(): whole models against torch, the call's contract, and errors."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphprune import runtime
from graphprune.api import plan, prune
from graphprune.compiler import compile
from graphprune.errors import BackendError, PassError, TraceError
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.prune_channels import PruneChannels

Pair = namedtuple("Pair", ["first", "second"])


def _assert_close(result, expected, tolerance=1e-5):
    assert result.shape == expected.shape and result.dtype == expected.dtype
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


def _sparsify(model, sparsity):
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            generator = torch.Generator().manual_seed(module.weight.numel())
            module.weight.data *= torch.rand(module.weight.shape, generator=generator) >= sparsity
    return model


def _settle_batch_norms(model, x):
    model.train()
    for _ in range(2):
        model(x + torch.randn_like(x))
    return model.eval()


class ResidualNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.left = nn.Conv2d(32, 32, 3, 1, 1)
        self.right = nn.Conv2d(32, 32, 1)
        self.last = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.left(x) + self.right(x)) + x
        x = F.max_pool2d(self.last(F.hardswish(x)), 2)
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_residual_cnn(sparsity):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = _sparsify(_settle_batch_norms(ResidualNet(), x), sparsity)
    compiled = compile(model, None, (x,))
    _assert_close(compiled(x), model(x))
    if sparsity:
        assert sum(layer.kernel.startswith("sparse") for layer in compiled.report().layers) >= 3


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_transformer_block(sparsity):
    torch.manual_seed(0)
    model = _sparsify(Block().eval(), sparsity)
    x = torch.randn(1, 40, 64)
    _assert_close(compile(model, None, (x,))(x), model(x))


@pytest.mark.parametrize("rows", [1, 7])
def test_mlp(rows):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(70, 90), nn.SiLU(), nn.Dropout(0.5), nn.Linear(90, 33), nn.Sigmoid()).eval()
    x = torch.randn(rows, 70)
    _assert_close(compile(model, None, (x,))(x), model(x))


def test_resnet18():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    model = _settle_batch_norms(torchvision.models.resnet18(weights=None), torch.randn(4, 3, 64, 64))
    compiled = compile(model, None, (x,))
    _assert_close(compiled(x), model(x))
    assert compiled.report().unscheduled == {}
    assert all(layer.kernel != "relax" for layer in compiled.report().layers)


class Nested(nn.Module):
    def forward(self, pair, flag=None, *, extra):
        first, second = pair["a"], pair["b"]
        return Pair([first + second, extra * 2], {"again": first + second, "none": flag})


def test_nested_arguments_and_results():
    a, b, extra = torch.randn(3, 4), torch.randn(3, 4), torch.randn(2)
    compiled = compile(Nested(), None, ({"a": a, "b": b},), {"extra": extra})
    result = compiled({"a": a, "b": b}, extra=extra)
    assert type(result) is Pair and type(result.first) is list and result.second["none"] is None
    _assert_close(result.first[0], a + b)
    _assert_close(result.first[1], extra * 2)
    assert torch.equal(result.second["again"], result.first[0])
    with pytest.raises(BackendError, match=r"argument 'pair': expected the keys \['a', 'b'\], got \['a'\]"):
        compiled({"a": a}, extra=extra)


def test_a_plan_may_take_the_place_of_a_pass():
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).eval(), torch.randn(2, 4)
    half = plan(model, PruneChannels(ratio=0.5), (x,))
    _assert_close(compile(model, half, (x,))(x), prune(model, half, (x,))(x))


def test_positional_arguments_may_be_named():
    model = nn.Linear(4, 3).eval()
    x = torch.randn(2, 4)
    _assert_close(compile(model, None, (x,))(input=x), model(x))


def test_numpy_and_awkward_tensors_are_accepted():
    model = nn.Linear(6, 3).eval()
    x = torch.randn(5, 6)
    compiled = compile(model, None, (x,))
    _assert_close(compiled(x.numpy()), model(x))
    _assert_close(compiled(torch.randn(6, 6)[1:].copy_(x)), model(x))
    _assert_close(compiled(x.t().contiguous().t()), model(x))
    _assert_close(compiled(x.clone().requires_grad_()), model(x))


def test_results_of_two_calls_do_not_share_memory():
    model = nn.Linear(6, 3).eval()
    x = torch.randn(5, 6)
    compiled = compile(model, None, (x,))
    first = compiled(x)
    kept = first.clone()
    compiled(x + 1)
    assert torch.equal(first, kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 5),), r"'input'.*float32\[2, 4\].*float32\[2, 5\]"),
        ((torch.zeros(2, 4, dtype=torch.float64),), "float64"),
        ((torch.zeros(4),), r"float32\[4\]"),
        ((), "0 positional"),
        ((torch.zeros(2, 4), torch.zeros(2, 4)), "2 positional"),
        (("text",), "got str"),
        ((torch.zeros(2, 4, device="meta"),), "'input'.*cannot be passed.*meta"),
    ],
)
def test_wrong_calls_say_what_was_expected(arguments, message):
    compiled = compile(nn.Linear(4, 3).eval(), None, (torch.zeros(2, 4),))
    with pytest.raises(BackendError, match=message):
        compiled(*arguments)


def test_unknown_target_and_wrong_pass_and_untraceable_model():
    x = torch.zeros(2, 4)
    with pytest.raises(BackendError, match="abacus"):
        compile(nn.Linear(4, 3), None, (x,), target="abacus")
    with pytest.raises(BackendError, match="no-such-cpu"):
        compile(nn.Linear(4, 3), None, (x,), target="llvm -mcpu=no-such-cpu")
    with pytest.raises(PassError, match="function"):
        compile(nn.Linear(4, 3), [lambda gm: gm], (x,))
    with pytest.raises(TraceError):
        compile(nn.Linear(4, 3), None, (torch.zeros(2, 5),))


def test_report_is_plain_data_and_prints():
    model = _sparsify(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), 0.9)
    model[2].weight.data.fill_(1.0)
    report = compile(model, FuseEpilogues(), (torch.zeros(8, 64),)).report()
    sparse, dense = report.layers
    assert sparse.kernel.startswith("sparse") and sparse.density == pytest.approx(0.1, abs=0.02)
    assert not dense.kernel.startswith("sparse") and "below" in dense.reason
    assert report.as_dict()["layers"][0]["shape"] == [64, 64]
    assert "0.weight" in str(report) and "fold-batch-norm" in str(report)


def test_number_of_threads_does_not_change_results():
    torch.manual_seed(0)
    model = Block().eval()
    x = torch.randn(1, 40, 64)
    compiled = compile(model, None, (x,))
    runtime.set_num_threads(1)
    single = compiled(x)
    runtime.set_num_threads(2)
    assert torch.equal(compiled(x), single)
    with pytest.raises(BackendError, match="at least 1"):
        runtime.set_num_threads(0)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.view(-1)[0] += 1
        return x * self.calls


def test_a_model_that_writes_to_its_buffers_is_refused():
    with pytest.raises(BackendError, match="writes to its buffer calls"):
        compile(Counting(), example_inputs=(torch.randn(2, 3),))
