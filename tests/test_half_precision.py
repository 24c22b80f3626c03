"""Models in half precision compute in float32 on a CPU, and take and return what they did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphprune.compiler import compile
from graphprune.half_precision import computed_in_float32
from graphprune.tracing.trace import trace


class Mixed(nn.Module):
    """Has a tied weight, a buffer, an input that is returned, casts, and results of several dtypes."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.register_buffer("shift", torch.full((8,), 0.5))

    def forward(self, indices, x):
        y = self.norm(self.embedding(indices) + x.to(self.shift.dtype) + self.shift)
        y = y.float().softmax(-1).to(y.dtype) @ self.embedding.weight.t()
        return {"y": y, "mean": y.float().mean(), "best": y.argmax(-1), "x": x}


def _model(dtype):
    torch.manual_seed(0)
    return Mixed().to(dtype).eval(), (torch.randint(0, 11, (2, 3)), torch.randn(2, 3, 8).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_stay_outside_and_are_float32_inside(dtype):
    model, inputs = _model(dtype)
    gm = trace(model, inputs)
    wide = computed_in_float32(gm)
    assert {p.dtype for p in gm.parameters()} == {dtype}, "the original stays as it is"
    assert {p.dtype for p in [*wide.parameters(), *wide.buffers()]} == {torch.float32}
    expected, got = model(*inputs), wide(*inputs)
    assert {name: value.dtype for name, value in got.items()} == {n: value.dtype for n, value in expected.items()}
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0.05)
    exact = Mixed()
    exact.load_state_dict(model.state_dict())
    exact_y = exact(inputs[0], inputs[1].float())["y"]
    torch.testing.assert_close(got["y"], exact_y.to(dtype), rtol=0, atol=0)  # rounded once, at the end


def test_graphs_that_need_nothing_or_read_bits_stay():
    gm = trace(nn.Linear(3, 2), (torch.randn(1, 3),))
    assert computed_in_float32(gm) is gm

    class Bits(nn.Module):
        def forward(self, x):
            return x.view(torch.int16) + 1

    bits = trace(Bits(), (torch.randn(3).half(),))
    assert computed_in_float32(bits) is bits


def test_compiled_bfloat16():
    model, inputs = _model(torch.bfloat16)
    got, expected = compile(model, None, inputs)(*inputs), model(*inputs)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=0.05, atol=0.05)
