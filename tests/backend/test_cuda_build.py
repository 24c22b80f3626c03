"""The CUDA backend without a GPU: cubins in the library, every function on threads, errors that say why."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn
from tvm import te

import graphprune as gp
from graphprune.backend import Backend
from graphprune.backend.cuda import compiler, device, embedding
from graphprune.backend.cuda.backend import CudaBackend
from graphprune.backend.cuda.schedule import has_thread_binding, schedule_for_cuda
from graphprune.backend.kernels import Epilogue
from graphprune.backend.kernels.cuda_sparse_linear import cuda_sparse_linear
from graphprune.errors import ArtifactError, BackendError
from graphprune.passes import PruneWeights

TARGET = {"kind": "cuda", "arch": "sm_90"}
SOURCE = 'extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= 2.0f; }'


def _has_compiler() -> bool:
    try:
        compiler.available_compiler()
    except BackendError:
        return False
    return True


def _has_device() -> bool:
    try:
        device.cuda_device()
    except BackendError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="neither nvcc nor NVRTC is installed")
needs_no_device = pytest.mark.skipif(_has_device(), reason="this machine has a CUDA device")
needs_device = pytest.mark.skipif(not _has_device(), reason="this machine has no CUDA device")


class Mixed(nn.Module):
    """A convolution, a sparse linear layer on one row, another on many rows, and a dense one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.sparse = nn.Linear(8, 64)
        self.dense = nn.Linear(64, 10)
        self.many = nn.Linear(3 * 8, 5)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        many = self.many(x.transpose(1, 2).flatten(2).repeat(4, 1, 1))
        return self.dense(torch.relu(self.sparse(y.mean((2, 3))))), many


@pytest.fixture(scope="module")
def compiled():
    torch.manual_seed(0)
    model = Mixed().eval()
    with torch.no_grad():
        for layer, sparsity in ((model.sparse, 0.9), (model.many, 0.8)):
            layer.weight *= torch.rand_like(layer.weight) > sparsity
    return gp.compile(model, example_inputs=(torch.randn(1, 3, 8, 8),), target=TARGET)


@needs_compiler
def test_the_report_says_what_each_layer_got_and_why(compiled):
    layers = {layer.name: layer for layer in compiled.report().layers}
    assert layers["sparse.weight"].kernel == "sparse_linear_delta4"
    assert "delta-4" in layers["sparse.weight"].note
    assert layers["dense.weight"].kernel == layers["many.weight"].kernel == layers["conv.weight"].kernel == "relax"
    assert "below 45%" in layers["dense.weight"].reason
    assert "below 96%" in layers["many.weight"].reason and "linear" in layers["many.weight"].reason
    assert "no sparse kernel on cuda" in layers["conv.weight"].reason


@needs_compiler
def test_the_exported_library_holds_cubins_and_no_source(compiled, tmp_path):
    folder = compiled.export(tmp_path / "model")
    cubins = embedding.embedded_cubins(folder / "model.so")
    assert len(cubins) == 1
    assert all(cubin.startswith(b"\x7fELF") for cubin in cubins)
    assert b"sparse_linear_delta4_kernel" in cubins[0]
    data = (folder / "model.so").read_bytes()
    assert b"graphprune cubin" not in data
    assert b"__global__" not in data


@needs_compiler
@needs_no_device
def test_running_and_loading_without_a_device_say_what_is_missing(compiled, tmp_path):
    with pytest.raises(BackendError, match="no CUDA device"):
        compiled(torch.randn(1, 3, 8, 8))
    path = compiled.export(tmp_path / "model.gp")
    with pytest.raises((BackendError, ArtifactError), match="no CUDA device"):
        gp.runtime.load(path)


@needs_compiler
def test_tvms_global_functions_are_restored():
    names = ("tvm_callback_cuda_compile", "tvm_callback_cuda_postproc")
    before = [tvm_ffi.get_global_func(name, allow_missing=True) for name in names]
    with pytest.raises(ValueError, match="inside"), embedding.collecting_device_code("sm_90"):
        assert tvm_ffi.get_global_func(names[1]) is not None
        raise ValueError("inside")
    after = [tvm_ffi.get_global_func(name, allow_missing=True) for name in names]
    assert [function is None for function in after] == [function is None for function in before]
    assert after[0] is None or after[0].same_as(before[0])


def test_a_library_laid_out_differently_is_refused(tmp_path):
    code = embedding.DeviceCode("sm_90", cubins=[b"\x7fELF" + bytes(200)])
    code.placeholders.append(embedding._placeholder(code.cubins[0]))
    library = tmp_path / "model.so"
    library.write_bytes(b"something else" + code.placeholders[0])
    with pytest.raises(BackendError, match=r"TVM 0\.27"):
        embedding.embed(library, code)


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_each_compiler_makes_cubins(arch):
    assert compiler.compile_to_cubin(SOURCE, arch).startswith(b"\x7fELF")
    if compiler._nvrtc_include_folder() and compiler._has_module("cuda.bindings"):
        # The preamble that TVM puts before every module asks for headers that NVRTC lacks.
        preamble = "#include <cuda/std/cstdint>\n#include <cuda/std/type_traits>\n#include <cuda_fp16.h>\n"
        check = "static_assert(cuda::std::is_unsigned<unsigned>::value && !cuda::std::is_same_v<int, float>);\n"
        assert compiler._compile_with_nvrtc(preamble + check + SOURCE, arch).startswith(b"\x7fELF")


@needs_compiler
def test_compiler_errors_are_typed():
    with pytest.raises(BackendError, match="failed for sm_90"):
        compiler.compile_to_cubin(SOURCE + "}", "sm_90")
    with pytest.raises(BackendError, match="failed for sm_12"):
        compiler.compile_to_cubin(SOURCE, "sm_12")


def test_without_a_compiler_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiler, "_has_module", lambda name: False)
    with pytest.raises(BackendError, match="nvidia-cuda-nvrtc"):
        CudaBackend().target(TARGET)


def test_the_backend_has_every_method_of_the_protocol():
    wanted = {name for name, value in vars(Backend).items() if callable(value) and not name.startswith("_")}
    assert "linear" in wanted
    assert wanted <= set(dir(CudaBackend))


def test_every_function_is_bound_to_threads():
    x = te.placeholder((4, 33), name="x")
    axis = te.reduce_axis((0, 33), name="k")
    total = te.compute((4,), lambda row: te.sum(x[row, axis], axis), name="total")
    plain = tvm.IRModule({"total": te.create_prim_func([x, total])})
    target = CudaBackend().target(TARGET) if _has_compiler() else None
    if target is None:
        pytest.skip("neither nvcc nor NVRTC is installed")
    assert not has_thread_binding(plain["total"])
    scheduled, left_alone = schedule_for_cuda(plain, target)
    assert has_thread_binding(scheduled["total"])
    assert left_alone == {}


@pytest.mark.parametrize(
    ("weight", "x_shape", "message"),
    [
        (np.ones((2, 70000), np.float16), (1, 70000), "65536"),
        (np.ones((2, 8), np.float64), (1, 8), "float64"),
        (np.ones((2, 8), np.float32), ("n", 8), "static"),
    ],
)
def test_what_the_sparse_kernel_cannot_do_is_refused(weight, x_shape, message):
    with pytest.raises(BackendError, match=message):
        cuda_sparse_linear(weight, None, x_shape, Epilogue())


def test_a_sparse_model_prunes_and_compiles_in_one_call(tmp_path):
    if not _has_compiler():
        pytest.skip("neither nvcc nor NVRTC is installed")
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 8)).half().eval()
    compiled = gp.compile(
        model, PruneWeights(sparsity=0.8), example_inputs=(torch.randn(1, 64).half(),), target="cuda -arch=sm_80"
    )
    assert {layer.kernel for layer in compiled.report().layers} == {"sparse_linear_delta4"}
    assert all("float16" in layer.note for layer in compiled.report().layers)
    assert compiled.export(tmp_path / "model.gp").is_file()


@pytest.mark.gpu
@needs_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("tokens", [1, 5])
def test_on_a_device_the_result_is_torchs(dtype, tokens):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 200), nn.SiLU(), nn.Linear(200, 50)).to(dtype).eval()
    x = torch.randn(tokens, 300, dtype=dtype)
    compiled = gp.compile(model, PruneWeights(sparsity=0.8), example_inputs=(x,), target=TARGET, min_sparsity=0.3)
    pruned = gp.prune(model, PruneWeights(sparsity=0.8), example_inputs=(x,))
    tolerance = 5e-3 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(compiled(x.cuda()).cpu(), pruned(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("compute_version", "arch", "runs"),
    [
        ("9.0", "sm_90", True),
        ("9.0", "sm_90a", True),
        ("8.9", "sm_80", True),
        ("8.0", "sm_89", False),
        ("9.0", "sm_80", False),
        ("10.3", "sm_100a", False),
        ("10.3", "sm_100", True),
    ],
)
def test_which_devices_run_a_cubin(compute_version, arch, runs):
    assert device.runs_cubin(compute_version, arch) == runs


def test_the_format_needs_neither_tvm_nor_torch():
    code = "import sys; from graphprune.backend.cuda import delta4; print('tvm' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
