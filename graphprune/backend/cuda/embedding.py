"""Makes TVM embed cubins in what it exports, so that loading needs no compiler, also on a machine without a GPU.

TVM's code generator hands its CUDA source to one of two module classes. Where the CUDA runtime library is loaded (a
machine with a driver), the real one compiles at once through the global function ``tvm_callback_cuda_compile``.
Elsewhere a stand-in keeps the *source*, which would be compiled when loaded. There, ``tvm_callback_cuda_postproc``,
through which all source passes, returns in place of the source a placeholder as long as the cubin, and ``embed`` writes
the cubin over it in the exported library. The serialised module is ``format, functions, code``, each string preceded by
its length as 64 bits (TVM's ``CUDAModuleNode::SaveToBytes``); any format but "cuda" makes the loader pass the code to
the driver.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tvm_ffi

from graphprune.backend.cuda.compiler import compile_to_cubin
from graphprune.errors import BackendError

_COMPILE = "tvm_callback_cuda_compile"
_POSTPROCESS = "tvm_callback_cuda_postproc"
_CREATE = "ffi.Module.create.cuda"

CUBIN_FORMAT = b"cubn"
"""Format under which an embedded cubin is stored; as long as "cuda", which it replaces in place."""

_SOURCE_TAG = struct.pack("<Q", 4) + b"cuda"


@dataclass
class DeviceCode:
    """What one build produced for the device.

    Attributes:
        arch: the architecture, ``sm_90``.
        sources: the CUDA C++ of each device module.
        cubins: the compiled form of each.
        placeholders: for each cubin that still has to be written into the exported library, its stand-in.
    """

    arch: str
    sources: list[str] = field(default_factory=list)
    cubins: list[bytes] = field(default_factory=list)
    placeholders: list[bytes] = field(default_factory=list)

    def compile(self, source: str) -> bytes:
        """Compile and record one device module."""
        cubin = compile_to_cubin(source, self.arch)
        self.sources.append(source)
        self.cubins.append(cubin)
        return cubin


@contextmanager
def collecting_device_code(arch: str) -> Iterator[DeviceCode]:
    """Compile all CUDA source that TVM generates inside the context; the global functions are restored after it."""
    code = DeviceCode(arch)

    def compile_now(source: str) -> bytes:
        return code.compile(source)

    def stand_in(source: str, _target: object) -> str:
        if tvm_ffi.get_global_func(_CREATE, allow_missing=True) is not None:
            return source  # the real module calls compile_now
        cubin = code.compile(source)
        placeholder = _placeholder(cubin)
        code.placeholders.append(placeholder)
        return placeholder.decode()

    with _overridden(_COMPILE, compile_now), _overridden(_POSTPROCESS, stand_in):
        yield code


def embed(library: Path, code: DeviceCode) -> None:
    """Write the cubins over their placeholders in an exported library.

    Raises:
        BackendError: if the library is not laid out as TVM 0.27 does.
    """
    if not code.placeholders:
        return
    data = bytearray(library.read_bytes())
    pending = set(code.placeholders)
    for cubin in code.cubins:
        placeholder = _placeholder(cubin)
        if placeholder in pending:
            _overwrite(data, placeholder, cubin)
    library.write_bytes(data)


def embedded_cubins(library: Path) -> list[bytes]:
    """Return the cubins in a library that ``embed`` has written."""
    data = library.read_bytes()
    tag = struct.pack("<Q", len(CUBIN_FORMAT)) + CUBIN_FORMAT
    cubins, position = [], data.find(tag)
    while position >= 0:
        (size,) = struct.unpack_from("<Q", data, position - 8)
        body = data[position : position + size]
        start = body.find(b"\x7fELF")
        if start >= 8 and struct.unpack_from("<Q", body, start - 8)[0] == len(body) - start:
            cubins.append(bytes(body[start:]))
        position = data.find(tag, position + 1)
    return cubins


def _placeholder(cubin: bytes) -> bytes:
    marker = f"graphprune cubin {hashlib.sha256(cubin).hexdigest()} ".encode()
    if len(cubin) < len(marker):
        raise BackendError(f"a cubin of {len(cubin)} bytes cannot be real")
    return marker.ljust(len(cubin), b".")


def _overwrite(data: bytearray, placeholder: bytes, cubin: bytes) -> None:
    start = data.find(placeholder)
    tag = data.rfind(_SOURCE_TAG, 0, max(start, 0))
    end = start + len(placeholder)
    # The module's bytes follow their own length, begin with the format and end with the code.
    known = start >= 0 and tag >= 8 and struct.unpack_from("<Q", data, tag - 8)[0] == end - tag
    if not known or data.find(placeholder, end) >= 0:
        raise BackendError(
            "the exported library does not hold its device code as TVM 0.27 does",
            hint="install apache-tvm==0.27.0.post1",
        )
    data[start:end] = cubin
    data[tag : tag + len(_SOURCE_TAG)] = struct.pack("<Q", len(CUBIN_FORMAT)) + CUBIN_FORMAT


@contextmanager
def _overridden(name: str, function: Callable) -> Iterator[None]:
    """Replace one of TVM's global functions for the duration of the context."""
    previous = tvm_ffi.get_global_func(name, allow_missing=True)
    tvm_ffi.register_global_func(name, function, override=True)
    try:
        yield
    finally:
        if previous is None:
            tvm_ffi.registry.remove_global_func(name)
        else:
            tvm_ffi.register_global_func(name, previous, override=True)
