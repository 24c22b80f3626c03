"""Wanda against a direct computation of the paper's formula, |W_ij| * ||X_j||_2."""

import torch
from torch import nn
from torch.nn import functional

from graphprune.criteria import Wanda
from graphprune.tracing.trace import trace
from tests.small_models import conv_net


def test_linear_over_tokens_of_several_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 3)).eval()
    batches = [torch.randn(2, 5, 6) for _ in range(3)]
    saliency = Wanda(batches).saliency(trace(model, (batches[0],)), ["0.weight", "2.weight", "2.bias"])
    with torch.no_grad():
        hidden = torch.cat([model[1](model[0](x)) for x in batches]).reshape(-1, 10)
    weight = model[2].weight.detach()
    expected = torch.empty(3, 10)
    for i in range(3):
        for j in range(10):
            expected[i, j] = weight[i, j].abs() * hidden[:, j].norm()
    torch.testing.assert_close(saliency["2.weight"], expected)
    norms = torch.cat(batches).reshape(-1, 6).norm(dim=0)
    torch.testing.assert_close(saliency["0.weight"], model[0].weight.detach().abs() * norms)
    assert not saliency["2.bias"].any()


def test_convolutions_use_the_norm_of_their_groups_channels():
    model = conv_net()
    x = torch.randn(8, 4, 8, 8)
    saliency = Wanda([x]).saliency(trace(model, (x,)), ["conv1.weight", "conv2.weight"])
    with torch.no_grad():
        hidden = functional.relu(model.bn1(model.conv1(x)))
    norms = hidden.transpose(0, 1).flatten(1).norm(dim=1)
    weight = model.conv2.weight.detach().abs()
    torch.testing.assert_close(saliency["conv2.weight"][:8], weight[:8] * norms[:8, None, None])
    torch.testing.assert_close(saliency["conv2.weight"][8:], weight[8:] * norms[8:, None, None])


def test_transposed_convolution_and_matrix_product():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
            self.matrix = nn.Parameter(torch.randn(6, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x).mean((2, 3)) @ self.matrix

    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(2, 4, 3, 3)
    saliency = Wanda([x]).saliency(trace(model, (x,)), ["up.weight", "matrix"])
    channels = x.transpose(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(saliency["up.weight"], model.up.weight.detach().abs() * channels[:, None, None, None])
    features = model.up(x).mean((2, 3)).detach().norm(dim=0)
    torch.testing.assert_close(saliency["matrix"], model.matrix.detach().abs() * features[:, None])


def test_tied_weight_reads_the_inputs_of_all_its_uses():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(functional.linear(x, self.weight).relu(), self.weight)

    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(7, 5)
    saliency = Wanda([x]).saliency(trace(model, (x,)), ["weight"])["weight"]
    hidden = functional.linear(x, model.weight).relu().detach()
    norms = torch.cat([x, hidden]).norm(dim=0)
    torch.testing.assert_close(saliency, model.weight.detach().abs() * norms)
