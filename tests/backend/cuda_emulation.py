"""Runs the CUDA backend's output on the CPU: kernels compiled by g++, behind stand-ins for CUDA's libraries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from graphprune.compiler import CompiledModel

_HERE = Path(__file__).parent / "cuda_emulator"
_FLAGS = ["-O1", "-w", "-shared", "-fPIC", "-std=c++17"]

needs_emulator = pytest.mark.skipif(
    shutil.which("g++") is None or sys.platform != "linux", reason="the CUDA emulator needs g++ on Linux"
)


def run_emulated(compiled: CompiledModel, inputs: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Export, load in a fresh process and run; of the cubins only the form is checked, the source is what runs."""
    artifact, kernels = compiled.export(folder / "model.gp"), folder / "kernels.so"
    _compile_kernels(compiled._executable.device_code.sources, kernels)
    np.savez(folder / "inputs.npz", **{f"{index:03d}": array for index, array in enumerate(inputs)})
    libraries = _emulated_libraries(folder.parent)
    environment = {**os.environ, "EMULATED_KERNELS": str(kernels), "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, str(_HERE / "run_artifact.py"), str(artifact), str(folder / "inputs.npz")]
    result = subprocess.run(
        [*command, str(folder / "outputs.npz")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outputs = np.load(folder / "outputs.npz")
    return [outputs[f"arr_{index}"] for index in range(len(outputs.files))]


@lru_cache(maxsize=1)
def _emulated_libraries(folder: Path) -> Path:
    """Compile the stand-ins for libcuda and libcudart into ``folder``."""
    target = folder / "emulated_cuda"
    target.mkdir(exist_ok=True)
    _gxx(_HERE / "driver.cpp", target / "libcuda.so.1", "-Wl,-soname,libcuda.so.1", "-ldl")
    version_script = f"-Wl,--version-script={_HERE / 'runtime.map'}"
    _gxx(_HERE / "runtime.cpp", target / "libcudart.so.13", "-Wl,-soname,libcudart.so.13", version_script)
    return target


def _compile_kernels(sources: list[str], library: Path) -> None:
    source_path = library.with_suffix(".cpp")
    source_path.write_text("\n".join(_with_entries(source) for source in sources))
    _gxx(source_path, library, "-fno-strict-aliasing", f"-I{_HERE / 'include'}")


def _with_entries(source: str) -> str:
    """Append, for each kernel, the entry that the emulated driver looks up."""
    definition = re.compile(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\([^;{]*\) \{")
    starts = [(match.group(1), match.end()) for match in definition.finditer(source)]
    ends = [start for _, start in starts[1:]] + [len(source)]
    entries = []
    for (name, start), end in zip(starts, ends, strict=True):
        waits = "true" if re.search(r"__sync|__shfl", source[start:end]) else "false"
        entries.append(f'extern "C" bool {name}_waits = {waits};')
        entries.append(f'extern "C" void {name}_entry(void** arguments) {{ emulator_call({name}, arguments); }}')
    # nvcc takes the alignment after the storage class, g++ before it.
    source = re.sub(r"__shared__ (alignas\(\d+\))", r"\1 __shared__", source)
    return '#include "emulator.h"\n' + source + "\n" + "\n".join(entries) + "\n"


def _gxx(source: Path, library: Path, *flags: str) -> None:
    result = subprocess.run(
        ["g++", *_FLAGS, str(source), "-o", str(library), *flags], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[:3000]
