"""Lowering: one op at a time against torch, and layers whose kernels must not be mixed up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphprune.compiler import compile
from graphprune.errors import BackendError, UnsupportedOpError


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


TOKENS = _random(2, 50, 96)
PLANES = _random(1, 16, 7, 7)
HEADS = _random(2, 4, 33, 16)
KEEP = torch.ones(33, 33, dtype=torch.bool).tril()
CLOSED = KEEP.clone()
CLOSED[..., 1, :] = False

OPS = {
    "softmax over the last axis": (lambda x: x.softmax(-1), TOKENS),
    "softmax over another axis": (lambda x: x.softmax(1), TOKENS),
    "layer norm": (lambda x: F.layer_norm(x * 3 + 100, (96,)), TOKENS),
    "layer norm over two axes": (lambda x: F.layer_norm(x, (50, 96)), TOKENS),
    "group norm without scale": (lambda x: F.group_norm(x, 4), PLANES),
    "gelu": (lambda x: F.gelu(x * 4), TOKENS),
    "gelu tanh": (lambda x: F.gelu(x * 4, approximate="tanh"), TOKENS),
    "transcendental functions": (lambda x: torch.exp(x) + torch.erf(x) + torch.tanh(x) + torch.sigmoid(x), TOKENS),
    "small powers": (lambda x: x.pow(3) + x.pow(2), TOKENS),
    "mean over tokens": (lambda x: x.mean(1), TOKENS),
    "mean over features": (lambda x: x.mean(-1), TOKENS),
    "variance": (lambda x: x.var(-1), TOKENS),
    "maximum": (lambda x: x.amax(-1) - x.amin(-1), TOKENS),
    "average pooling of 49 positions": (lambda x: F.adaptive_avg_pool2d(x, 1), PLANES),
    "average pooling": (lambda x: F.avg_pool2d(x, 2), PLANES),
    "max pooling": (lambda x: F.max_pool2d(x, 3, 2, 1), _random(1, 20, 56, 55)),
    "max pooling, ceiling": (lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), _random(1, 3, 15, 21)),
    "max pooling, rectangular": (lambda x: F.max_pool2d(x, (1, 3), (1, 2), (0, 1)), _random(2, 3, 15, 21)),
    "max pooling of negative values": (lambda x: F.max_pool2d(x - 100, 3, 1, 1), PLANES),
    "concatenation": (lambda x: torch.cat([x, x.relu()], 1), PLANES),
    "one position": (lambda x: x[:, 0] - x[-1, -2], TOKENS),
    "transpose and reshape": (lambda x: x.permute(0, 2, 1).reshape(2, 12, 8, 50) * 2, TOKENS),
    "product": (lambda x: x @ x.transpose(1, 2), TOKENS),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1), HEADS),
    "causal attention": (lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, is_causal=True), HEADS),
    "attention with boolean mask": (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=KEEP), HEADS),
    "attention that keeps nothing in a row": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=CLOSED),
        HEADS,
    ),
    "attention with -inf in a whole row": (
        lambda x: F.scaled_dot_product_attention(
            x, x, x, attn_mask=torch.zeros(CLOSED.shape).masked_fill(~CLOSED, -torch.inf)
        ),
        HEADS,
    ),
    "attention with computed mask": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x.sum(-1)[:, :1, None, :], scale=0.3),
        HEADS,
    ),
    "grouped-query attention": (
        lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, 2:] + 1, enable_gqa=True),
        HEADS,
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_op_equals_torch(name):
    function, x = OPS[name]
    result, expected = compile(Function(function), None, (x,))(x), function(x)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 3e-6 * expected.abs().max()


def test_one_position_is_a_slice_without_warnings(capfd):
    compile(Function(lambda x: x[:, 0]), None, (TOKENS,))
    assert "segfault" not in capfd.readouterr().err


def test_embedding_stays_inside_its_table(capfd):
    model = nn.Embedding(10, 16).eval()
    indices = torch.tensor([[0, 3, 9], [1, 1, 2]])
    compiled = compile(model, None, (indices,))
    assert torch.equal(compiled(indices), model(indices))
    beyond = compiled(torch.tensor([[10**6, -(10**6), 4], [1, 1, 2]]))
    assert torch.equal(beyond[0, 2], model.weight[4]) and torch.isfinite(beyond).all()
    assert "segfault" not in capfd.readouterr().err


def _sparse_layer(seed, features=64):
    layer = nn.Linear(features, features)
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(features, features, generator=generator) > 0.9
    layer.weight.data = torch.randn(features, features, generator=generator) * keep
    return layer


def test_sparse_layers_of_equal_shape_keep_their_own_weights():
    model = nn.Sequential(_sparse_layer(1), nn.ReLU(), _sparse_layer(2), nn.ReLU(), _sparse_layer(3)).eval()
    x = _random(8, 64)
    compiled = compile(model, None, (x,))
    assert torch.allclose(compiled(x), model(x), atol=1e-5)
    kernels = [layer.kernel for layer in compiled.report().layers]
    assert len(kernels) == 3 and all(kernel.startswith("sparse") for kernel in kernels)


def test_sparse_layers_with_equal_sparsity_pattern_keep_their_own_values():
    first, second = _sparse_layer(1), _sparse_layer(1)
    second.weight.data = second.weight.data * 2
    model = nn.Sequential(first, second).eval()
    x = _random(8, 64)
    assert torch.allclose(compile(model, None, (x,))(x), model(x), atol=1e-5)


def test_grouped_convolutions_are_sparse_and_the_report_says_why_depthwise_ones_are_not():
    model = nn.Sequential(nn.Conv2d(32, 24, 3, groups=4), nn.Conv2d(24, 24, 3, groups=24)).eval()
    for layer in model:
        layer.weight.data[:, :, 1:] = 0
    x = _random(1, 32, 12, 12)
    compiled = compile(model, None, (x,), min_sparsity=0.5)
    grouped, depthwise = compiled.report().layers
    assert grouped.kernel == "sparse_conv2d" and grouped.density == pytest.approx(1 / 3)
    assert not depthwise.kernel.startswith("sparse") and "depthwise" in depthwise.reason
    assert torch.allclose(compiled(x), model(x), atol=1e-5)


class _Excitation(nn.Module):
    """Scales channels by what one filter as large as the plane, and then 1x1 ones, say of them, with a residual."""

    def __init__(self):
        super().__init__()
        self.whole, self.inner, self.last = nn.Conv2d(12, 9, (6, 5)), nn.Conv2d(9, 9, 1), nn.Conv2d(9, 12, 1)

    def forward(self, x):
        small = F.silu(self.whole(x))
        return x * torch.sigmoid(self.last(F.relu(self.inner(small) + small)))


def test_convolutions_of_whole_planes_are_linear():
    model, x = _Excitation().eval(), _random(3, 12, 6, 5)
    model.inner.weight.data[:, 1:] = 0
    compiled = compile(model, None, (x,), min_sparsity=0.5)
    kernels = [layer.kernel for layer in compiled.report().layers]
    assert kernels == ["dense_linear", "sparse_linear", "dense_linear"]
    assert torch.allclose(compiled(x), model(x), atol=1e-5)


def test_conv1d_and_transposed_convolution():
    model = nn.Sequential(nn.Conv1d(8, 16, 5, 2, 2), nn.ReLU(), nn.ConvTranspose1d(16, 4, 4, 2, 1)).eval()
    x = _random(2, 8, 40)
    assert torch.allclose(compile(model, None, (x,))(x), model(x), atol=1e-5)


def test_op_without_lowering_is_named():
    with pytest.raises(UnsupportedOpError, match="fft") as caught:
        compile(Function(lambda x: torch.fft.rfft(x).abs()), None, (TOKENS,))
    assert caught.value.source is not None and "test_lower.py" in caught.value.source


def test_dynamic_shapes_are_refused_with_the_inputs_name():
    batch = torch.export.Dim("batch", min=2, max=16)
    with pytest.raises(BackendError, match="static shapes") as caught:
        compile(nn.Linear(4, 4), None, (_random(3, 4),), dynamic_shapes=({0: batch},))
    assert "'input'" in caught.value.message
