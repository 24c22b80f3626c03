"""Turns CUDA C++ source into a cubin for one architecture, with nvcc or NVRTC; no GPU is needed for either."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from graphprune.errors import BackendError

_HINT = (
    "put nvcc (CUDA 12 or newer) and a host C++ compiler on PATH, or "
    "pip install cuda-bindings nvidia-cuda-nvrtc nvidia-cuda-runtime"
)

# NVRTC has neither the C++ standard library nor, in the pip packages, its CUDA twin; TVM's preamble asks for these two.
_NVRTC_HEADERS = {
    "cuda/std/cstdint": """
        namespace cuda { namespace std {
        using int8_t = signed char; using int16_t = short; using int32_t = int; using int64_t = long long;
        using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned int;
        using uint64_t = unsigned long long;
        } }""",
    "cuda/std/type_traits": """
        namespace cuda { namespace std {
        template <bool B> struct bool_constant { static constexpr bool value = B; };
        template <class A, class B> struct is_same : bool_constant<false> {};
        template <class A> struct is_same<A, A> : bool_constant<true> {};
        template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
        template <class T> struct is_floating_point
            : bool_constant<is_same_v<T, float> || is_same_v<T, double>> {};
        template <class T> struct is_integral : bool_constant<
            is_same_v<T, bool> || is_same_v<T, char> || is_same_v<T, signed char> || is_same_v<T, unsigned char> ||
            is_same_v<T, short> || is_same_v<T, unsigned short> || is_same_v<T, int> || is_same_v<T, unsigned> ||
            is_same_v<T, long> || is_same_v<T, unsigned long> || is_same_v<T, long long> ||
            is_same_v<T, unsigned long long>> {};
        template <class T> struct is_signed : bool_constant<(T(-1) < T(0))> {};
        template <class T> struct is_unsigned : bool_constant<!(T(-1) < T(0))> {};
        template <bool B, class T = void> struct enable_if {};
        template <class T> struct enable_if<true, T> { using type = T; };
        template <bool B, class T, class F> struct conditional { using type = T; };
        template <class T, class F> struct conditional<false, T, F> { using type = F; };
        } }""",
}


def compile_to_cubin(source: str, arch: str) -> bytes:
    """Compile CUDA C++ to a cubin.

    Args:
        source: one translation unit.
        arch: a real architecture such as ``sm_90``.

    Raises:
        BackendError: if no compiler is installed, or it rejects the source or the architecture.
    """
    compiler = available_compiler()
    cubin = _compile_with_nvcc(source, arch) if compiler == "nvcc" else _compile_with_nvrtc(source, arch)
    if not cubin.startswith(b"\x7fELF"):
        raise BackendError(f"{compiler} returned something that is not a cubin for {arch}")
    return cubin


def available_compiler() -> str:
    """Return ``nvcc`` if it and a host compiler are on PATH, else ``nvrtc`` if its packages are installed.

    Raises:
        BackendError: if there is neither.
    """
    if shutil.which("nvcc") and any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return "nvcc"
    missing = [name for name in ("cuda.bindings", "nvidia") if not _has_module(name)]
    if not missing and _nvrtc_include_folder() is not None:
        return "nvrtc"
    raise BackendError("no CUDA compiler: found neither nvcc nor NVRTC with the CUDA headers", hint=_HINT)


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@lru_cache(maxsize=1)
def _nvrtc_include_folder() -> Path | None:
    """Return a folder with ``cuda_fp16.h``: of the pip packages, else of a CUDA toolkit."""
    candidates = [
        folder / sub
        for entry in sys.path
        for folder in [Path(entry) / "nvidia"]
        for sub in ("cu13/include", "cuda_runtime/include", "cu12/include")
    ]
    toolkit = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    candidates.append(Path(toolkit) / "include")
    return next((folder for folder in candidates if (folder / "cuda_fp16.h").is_file()), None)


def _compile_with_nvcc(source: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="graphprune-cuda-") as folder:
        source_path, cubin_path = Path(folder, "kernels.cu"), Path(folder, "kernels.cubin")
        source_path.write_text(source)
        options = ["--cubin", "-O3", "-std=c++17", "-w", f"-arch={arch}", "-o", str(cubin_path)]
        result = subprocess.run(["nvcc", *options, str(source_path)], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BackendError(f"nvcc failed for {arch}: {_first_lines(result.stderr or result.stdout)}")
        return cubin_path.read_bytes()


def _compile_with_nvrtc(source: str, arch: str) -> bytes:
    from cuda.bindings import nvrtc  # pyright: ignore[reportMissingImports] (an optional package, needed only here)

    names = [name.encode() for name in _NVRTC_HEADERS]
    texts = [text.encode() for text in _NVRTC_HEADERS.values()]
    # The driver's header is for host code that TVM's preamble shares; device code needs nothing of it.
    device_source = source.replace("#include <cuda.h>", "")
    status, program = nvrtc.nvrtcCreateProgram(device_source.encode(), b"kernels.cu", len(names), texts, names)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC could not take the source: {status}")
    try:
        options = [f"--gpu-architecture={arch}", "--std=c++17", "-default-device", "-w", f"-I{_nvrtc_include_folder()}"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            _, size = nvrtc.nvrtcGetProgramLogSize(program)
            log = bytearray(size)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise BackendError(f"NVRTC failed for {arch}: {_first_lines(log.decode(errors='replace'))}")
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        cubin = bytearray(size)
        nvrtc.nvrtcGetCUBIN(program, cubin)
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _first_lines(log: str, count: int = 6) -> str:
    lines = [line for line in log.replace("\0", "").strip().splitlines() if line.strip()]
    return " | ".join(line.strip()[:200] for line in lines[:count]) or "no message"
