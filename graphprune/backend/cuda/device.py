"""Finds the CUDA device and the libraries that TVM's runtime needs for it, and says which one is missing."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import BackendError

if TYPE_CHECKING:
    import tvm

_LOADER = "ffi.Module.load_from_bytes.cuda"
_DRIVER = "libcuda.so.1"
_RUNTIME = "libcudart.so.13"
_TVM_RUNTIME = "libtvm_runtime_cuda.so"


def load_cuda_runtime() -> None:
    """Load TVM's CUDA runtime library unless it is there already; safe to call again.

    Raises:
        BackendError: naming the library that is missing: NVIDIA's driver, the CUDA runtime, or TVM's part.
    """
    import tvm_ffi

    if tvm_ffi.get_global_func(_LOADER, allow_missing=True) is not None:
        return
    _load(_DRIVER, [], "the NVIDIA driver is not installed", "install it, or load the artifact on a GPU machine")
    pip_folders = [Path(entry, "nvidia", sub) for entry in sys.path for sub in ("cu13/lib", "cuda_runtime/lib")]
    _load(_RUNTIME, pip_folders, "the CUDA 13 runtime is not installed", "pip install nvidia-cuda-runtime")
    _load(_TVM_RUNTIME, _tvm_folders(), "this build of TVM has no CUDA runtime", "pip install apache-tvm==0.27.0.post1")
    if tvm_ffi.get_global_func(_LOADER, allow_missing=True) is None:
        raise BackendError(f"{_TVM_RUNTIME} was loaded but registers no loader for CUDA modules")


def cuda_device(index: int = 0, arch: str | None = None) -> tvm.runtime.Device:
    """Return the CUDA device with this index; with ``arch`` (``sm_90``), only if it runs cubins for that architecture.

    Raises:
        BackendError: if it is not there, a library for it is missing, or it is of another architecture.
    """
    load_cuda_runtime()
    import tvm

    device = tvm.cuda(index)
    if not device.exist:
        raise BackendError(f"no CUDA device {index} is visible", hint="check nvidia-smi and CUDA_VISIBLE_DEVICES")
    version = device.compute_version
    if arch is not None and not runs_cubin(version, arch):
        raise BackendError(
            f"the model is compiled for {arch}, and CUDA device {index} has compute capability {version}",
            hint=f'compile with target={{"kind": "cuda", "arch": "sm_{version.replace(".", "")}"}}',
        )
    return device


def runs_cubin(compute_version: str, arch: str) -> bool:
    """Say whether a device of ``compute_version`` ("9.0") runs cubins for ``arch``: the same major, no older minor.

    Cubins for an architecture with a suffix, such as ``sm_90a``, run on exactly that one.
    """
    digits = arch.removeprefix("sm_").rstrip("abcdefghijklmnopqrstuvwxyz")
    exact = not arch[-1].isdigit()
    major, minor = int(digits[:-1]), int(digits[-1])
    device_major, device_minor = (int(part) for part in compute_version.split("."))
    return device_major == major and (device_minor == minor if exact else device_minor >= minor)


def _tvm_folders() -> list[Path]:
    import tvm

    package = Path(tvm.__file__).parent
    return [package / "lib", package]


def _load(name: str, folders: list[Path], problem: str, hint: str) -> None:
    """Load a shared library for all that come after it, from the loader's own path or one of ``folders``."""
    attempts = [name, *(str(folder / name) for folder in folders if (folder / name).is_file())]
    for attempt in attempts:
        try:
            ctypes.CDLL(attempt, mode=ctypes.RTLD_GLOBAL)
            return
        except OSError:
            continue
    raise BackendError(f"no CUDA device can be used: {problem} ({name} was not found)", hint=hint)
