"""Writes a compiled model as an artifact, a folder or a zip file, so that it is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm.target import codegen

from graphprune import __version__
from graphprune.backend.target import CompileTarget
from graphprune.errors import ArtifactError
from graphprune.manifest import (
    FORMAT_VERSION,
    LIBRARY_NAME,
    MANIFEST_NAME,
    file_digest,
    manifest_digest,
    this_machine,
)
from graphprune.runtime import without_scope_warnings
from graphprune.signature import Signature

_ZIP_SUFFIXES = (".gp", ".zip")
# What kernels may use and machines may lack; LLVM's list holds many names that Linux spells differently.
_CHECKED_FEATURES = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512bf16",
)


def write_artifact(
    path: str | os.PathLike[str],
    executable: tvm.runtime.Executable,
    signature: Signature,
    target: CompileTarget,
    details: Mapping[str, Any],
) -> Path:
    """Write ``model.so`` and ``manifest.json`` to ``path`` and return it.

    A path that ends in ``.gp`` or ``.zip`` becomes a zip file, any other a folder. ``details`` (JSON data: report,
    history) goes into the manifest. An artifact that is there already is replaced; another kind of file or folder is
    not.

    Raises:
        ArtifactError: if ``path`` is taken by something else, or the library cannot be linked or written.
    """
    path = Path(path)
    _refuse_foreign(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
            folder = Path(temporary) / "artifact"
            folder.mkdir()
            _link(executable, folder / LIBRARY_NAME)
            manifest = _manifest(folder, signature, target, details)
            (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _publish(folder, path)
    except OSError as error:
        raise ArtifactError(f"cannot write the artifact to {path}: {error}") from error
    return path


def _refuse_foreign(path: Path) -> None:
    if path.is_dir():
        names = {child.name for child in path.iterdir()}
        if names and not (MANIFEST_NAME in names and names <= {MANIFEST_NAME, LIBRARY_NAME}):
            raise ArtifactError(f"{path} is a folder with other files, which export would delete")
    elif path.exists() and not zipfile.is_zipfile(path):
        raise ArtifactError(f"{path} exists and is not an artifact")


def _link(executable: tvm.runtime.Executable, path: Path) -> None:
    try:
        with without_scope_warnings():
            executable.export_library(str(path))
    except RuntimeError as error:  # the linker failed; its output is in the message
        lines = str(error).strip().splitlines() or ["no output"]
        raise ArtifactError(
            f"the compiled code could not be linked to a library: {lines[-1]}",
            hint="export needs a C++ compiler, such as g++ or clang++, to call the linker",
        ) from error


def _manifest(folder: Path, signature: Signature, target: CompileTarget, details: Mapping[str, Any]) -> dict[str, Any]:
    library = folder / LIBRARY_NAME
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "versions": {"graphprune": __version__, "tvm": tvm.__version__, "tvm_ffi": tvm_ffi.__version__},
        "target": dict(target.spec),
        "machine": this_machine(),
        "cpu_features": _features(target),
        "signature": signature.as_dict(),
        "files": {LIBRARY_NAME: {"sha256": file_digest(library), "bytes": library.stat().st_size}},
        **details,
    }
    manifest = json.loads(json.dumps(manifest))  # what a reader will see, tuples turned to lists, so digests agree
    return manifest | {"digest": manifest_digest(manifest)}


def _features(target: CompileTarget) -> list[str]:
    """Return the processor features that code for the target's CPU, or its host's, may use."""
    spec = target.spec if target.kind == "llvm" else target.spec.get("host", {"kind": "llvm"})
    available = {str(name) for name in codegen.llvm_get_cpu_features(tvm.target.Target(spec))}
    return [name for name in _CHECKED_FEATURES if name in available]


def _publish(folder: Path, path: Path) -> None:
    """Move the finished artifact to its place; the old one stays until the new one is whole."""
    if path.suffix in _ZIP_SUFFIXES:
        archive = folder.parent / "artifact.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
            for name in (MANIFEST_NAME, LIBRARY_NAME):
                file.write(folder / name, name)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(archive, path)
        return
    if path.is_dir():
        os.replace(path, folder.parent / "old")
    elif path.exists():
        os.remove(path)
    os.replace(folder, path)
