"""The CUDA backend's numbers, from whole artifacts run on the CPU emulator (see ``cuda_emulation.py``)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprune as gp
from graphprune.ops import ACTIVATIONS
from graphprune.tracing.trace import trace
from tests.backend.cuda_emulation import needs_emulator, run_emulated

TARGET = {"kind": "cuda", "arch": "sm_90"}

pytestmark = needs_emulator
pytest.importorskip("tvm")


class Fused(nn.Module):
    """Sparse layers of one shape each, written with the op that the compiler lowers; every one is an output."""

    def __init__(self, cases: list[tuple[int, int, int, str, bool, bool]], density: float):
        super().__init__()
        self.cases = cases
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for _, rows, columns, _, _, _ in cases:
            weight = torch.randn(rows, columns) * (torch.rand(rows, columns) < density)
            self.weights.append(nn.Parameter(weight, requires_grad=False))
            self.biases.append(nn.Parameter(torch.randn(rows), requires_grad=False))

    def inputs(self) -> tuple[torch.Tensor, ...]:
        tensors = []
        for tokens, rows, columns, *_ in self.cases:
            tensors += [torch.randn(tokens, columns), torch.randn(tokens, rows)]
        return tuple(tensors)

    def forward(self, *tensors):
        outputs = []
        for index, (_, _, _, activation, bias, residual) in enumerate(self.cases):
            x, other = tensors[2 * index : 2 * index + 2]
            outputs.append(
                torch.ops.graphprune.fused_linear(
                    x,
                    self.weights[index],
                    self.biases[index] if bias else None,
                    other if residual else None,
                    activation,
                    "csr",
                )
            )
        return tuple(outputs)


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...], folder, **options) -> tuple[list[torch.Tensor], object]:
    """Compile for CUDA, run in the emulator and return the outputs with the report."""
    try:
        compiled = gp.compile(model, example_inputs=inputs, target=TARGET, **options)
    except gp.errors.BackendError as error:
        if "no CUDA compiler" in str(error):
            pytest.skip("neither nvcc nor NVRTC is installed")
        raise
    outputs = run_emulated(compiled, [tensor.numpy() for tensor in inputs], folder)
    return [torch.from_numpy(output) for output in outputs], compiled.report()


def assert_like_torch(model: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: list[torch.Tensor]) -> None:
    with torch.no_grad():
        expected = model(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    tolerance = {torch.float32: 2e-5, torch.float16: 4e-3}[inputs[0].dtype]
    assert len(outputs) == len(expected)
    for output, reference in zip(outputs, expected, strict=True):
        assert reference.abs().max() > 1e-3
        torch.testing.assert_close(output, reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_sparse_linear_in_every_shape_and_epilogue(dtype, tmp_path):
    torch.manual_seed(0)
    shapes = [
        (1, 37, 100),  # rows are no multiple of the warps in a block
        (1, 8, 104),  # x staged with 16-byte loads
        (1, 5, 4096),  # several groups a lane
        (2, 9, 33),
        (3, 9, 40),  # a tile of four with one token missing
        (5, 16, 17),
        (8, 16, 64),
        (11, 4, 100),  # two tiles, the second not full
        (1, 3, 30000),  # x too long for shared memory
    ]
    cases = [
        (*shape, ACTIVATIONS[index % len(ACTIVATIONS)], index % 2 == 0, index % 3 == 0)
        for index, shape in enumerate(shapes)
    ]
    model = Fused(cases, density=0.2).to(dtype).eval()
    inputs = tuple(tensor.to(dtype) for tensor in model.inputs())
    outputs, report = run(model, inputs, tmp_path, min_sparsity=0.0)
    assert {layer.kernel for layer in report.layers} == {"sparse_linear_delta4"}
    assert sum("global memory" in layer.note for layer in report.layers) == 1
    assert_like_torch(model, inputs, outputs)


def test_extreme_densities_and_twins(tmp_path):
    torch.manual_seed(1)
    cases = [(1, 12, 90, "none", True, False), (1, 12, 90, "none", True, False), (2, 6, 50, "relu", True, False)]
    model = Fused(cases, density=1.0).eval()
    model.weights[1].data[::2] = 0  # of one shape with the first, but with empty rows
    model.weights[2].data.zero_()  # nothing but the bias is left
    inputs = model.inputs()
    outputs, _ = run(model, inputs, tmp_path, min_sparsity=0.0)
    assert_like_torch(model, inputs, outputs)


@pytest.mark.slow
def test_a_small_cnn(tmp_path):
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Hardswish(),
        nn.Conv2d(16, 24, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    ).eval()
    inputs = (torch.randn(2, 3, 16, 16),)
    outputs, _ = run(model, inputs, tmp_path)
    assert_like_torch(model, inputs, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_transformer_block(dtype, tmp_path):
    torch.manual_seed(3)
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu").to(dtype).eval()
    with torch.no_grad():
        for weight in (model.linear1.weight, model.linear2.weight):
            weight *= torch.rand(weight.shape) > 0.8
    inputs = (torch.randn(2, 6, 32).to(dtype),)
    outputs, report = run(model, inputs, tmp_path, min_sparsity=0.5)
    kernels = {layer.name: layer.kernel for layer in report.layers}
    assert kernels["linear1.weight"] == kernels["linear2.weight"] == "sparse_linear_delta4"
    assert_like_torch(model, inputs, outputs)


def test_a_traced_graph_compiles_like_the_model(tmp_path):
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 4)).eval()
    inputs = (torch.randn(3, 40),)
    outputs, _ = run(trace(model, inputs), inputs, tmp_path)
    assert_like_torch(model, inputs, outputs)
