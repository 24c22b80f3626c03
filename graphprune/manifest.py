"""The files of an artifact: reads them, and checks that they are whole, unchanged, and made for this machine.

Needs neither torch nor TVM, so what cannot run is refused before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphprune.errors import ArtifactError

FORMAT_VERSION = 1
LIBRARY_NAME = "model.so"
MANIFEST_NAME = "manifest.json"
_REQUIRED = ("format", "versions", "target", "machine", "cpu_features", "signature", "files", "digest")


def extract(path: Path, folder: Path) -> None:
    """Unpack a zipped artifact; raises ``ArtifactError`` if it is not complete."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (MANIFEST_NAME, LIBRARY_NAME):
                archive.extract(name, folder)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
        raise ArtifactError(f"{path} is not a complete artifact: {error}", hint="export the model again") from error


def read_manifest(folder: Path, shown: Path) -> dict[str, Any]:
    """Return the manifest of the artifact in ``folder``, which errors call ``shown``, after checking both files.

    Raises:
        ArtifactError: if a file is missing, incomplete or was changed since export, or of another format.
    """
    manifest = _read_json(folder, shown)
    _check_library(folder, shown, manifest)
    return manifest


def check_fits(shown: Path, manifest: Mapping[str, Any], tvm_version: str) -> None:
    """Check that the artifact was built by the installed version of TVM and for this machine.

    Raises:
        ArtifactError: if it was not.
    """
    _check_versions(shown, manifest, tvm_version)
    _check_machine(shown, manifest)


def _read_json(folder: Path, shown: Path) -> dict[str, Any]:
    try:
        text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
        manifest = json.loads(text)
    except FileNotFoundError as error:
        raise ArtifactError(f"{shown} has no {MANIFEST_NAME}: it is not an artifact, or incomplete") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{shown}: {MANIFEST_NAME} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or any(key not in manifest for key in _REQUIRED):
        raise ArtifactError(f"{shown}: {MANIFEST_NAME} lacks required entries", hint="export the model again")
    if manifest["format"] != FORMAT_VERSION:
        raise ArtifactError(
            f"{shown} has format {manifest['format']!r}, and this graphprune reads format {FORMAT_VERSION}",
            hint="export the model again with this version",
        )
    if manifest["digest"] != manifest_digest(manifest):
        raise ArtifactError(f"{shown}: {MANIFEST_NAME} was changed after export", hint="export the model again")
    return manifest


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the sha256 of a manifest's content, its own digest left out."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, read in pieces (``hashlib.file_digest`` needs Python 3.11)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_library(folder: Path, shown: Path, manifest: Mapping[str, Any]) -> None:
    library = folder / LIBRARY_NAME
    if not library.is_file():
        raise ArtifactError(f"{shown} has no {LIBRARY_NAME}: the artifact is incomplete")
    expected = manifest["files"].get(LIBRARY_NAME, {}).get("sha256")
    if file_digest(library) != expected:
        raise ArtifactError(
            f"{shown}: {LIBRARY_NAME} is corrupt or was changed: its sha256 is not the manifest's",
            hint="export the model again, or copy the artifact again",
        )


def _check_versions(shown: Path, manifest: Mapping[str, Any], installed: str) -> None:
    built = manifest["versions"].get("tvm")
    if built != installed:
        raise ArtifactError(
            f"{shown} was built with TVM {built}, and TVM {installed} is installed",
            hint=f"pip install apache-tvm=={built}, or compile the model again",
        )


def _check_machine(shown: Path, manifest: Mapping[str, Any]) -> None:
    built = manifest["machine"]
    if built != this_machine():
        raise ArtifactError(f"{shown} is for {built}, and this machine is {this_machine()}")
    available = _processor_features()
    if available is None:
        return
    missing = [name for name in manifest["cpu_features"] if _feature_key(name) not in available]
    if missing:
        raise ArtifactError(
            f"{shown} uses processor features that this machine lacks: {', '.join(missing)}",
            hint="compile with a target that both machines have, such as 'llvm -mcpu=haswell'",
        )


def this_machine() -> str:
    """Return operating system and processor architecture, such as ``Linux-x86_64``."""
    return f"{platform.system()}-{platform.machine()}"


def _processor_features() -> set[str] | None:
    """Return the processor's vector features as Linux names them, or None where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("flags"):
            return {_feature_key(name) for name in line.partition(":")[2].split()}
    return None


def _feature_key(name: str) -> str:
    return name.replace("_", "").replace(".", "").replace("-", "").lower()
