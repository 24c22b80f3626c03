"""Remembers measured decisions on disk: one JSON file for each target, thread count and version of the packages."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.backend.tuning.candidates import Candidate
from graphprune.whole_files import written_whole

FOLDER_VARIABLE = "GRAPHPRUNE_CACHE"
_FORMAT = 1


@dataclass(frozen=True)
class Decision:
    """The outcome of measuring one layer.

    Attributes:
        candidate: the fastest.
        seconds: its time, the least of many runs.
        default_seconds: the time of what the untuned compiler would have used, in the same run.
    """

    candidate: Candidate
    seconds: float
    default_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON data."""
        return {**self.candidate.as_dict(), "seconds": self.seconds, "default_seconds": self.default_seconds}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Decision:
        """Return the decision that ``as_dict`` spelt; raises ``TypeError``, ``KeyError`` or ``ValueError``."""
        return cls(Candidate.from_dict(data), float(data["seconds"]), float(data["default_seconds"]))


def default_folder() -> Path:
    """Return where decisions are kept unless told otherwise: ``$GRAPHPRUNE_CACHE``, else the user's cache folder."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    system = platform.system()
    if system == "Darwin":
        base = Path.home() / "Library" / "Caches"
    elif system == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "graphprune" / "tuning"


class TuningCache:
    """Decisions by layer, in one file that names what they hold for.

    A file that cannot be read, or is not one of these, is ignored with a warning and replaced by the next write. A
    write adds to what other processes have written since, and is atomic.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, context: dict[str, Any]) -> None:
        """Read the file in ``folder`` (None: :func:`default_folder`) for ``context``: target, threads, versions."""
        self.context = json.loads(json.dumps(context))
        digest = hashlib.sha256(json.dumps(self.context, sort_keys=True).encode()).hexdigest()[:16]
        self.path = Path(folder or default_folder()) / f"{digest}.json"
        self._decisions = self._read()

    def get(self, key: str) -> Decision | None:
        """Return the decision for the layer ``key``, or None."""
        return self._decisions.get(key)

    def put(self, key: str, decision: Decision) -> None:
        """Remember a decision, on disk too; if that fails, warn and go on."""
        self._decisions[key] = decision
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._decisions = {**self._read(), **self._decisions}
            self._write()
        except OSError as error:
            self._warn(f"cannot be written, so what was measured is lost afterwards: {error}")

    def _read(self) -> dict[str, Decision]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["format"] != _FORMAT or data["context"] != self.context:
                raise ValueError("it was made for something else")
            return {str(key): Decision.from_dict(entry) for key, entry in data["layers"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._warn(f"is ignored: {type(error).__name__}: {error}")
            return {}

    def _write(self) -> None:
        layers = {key: self._decisions[key].as_dict() for key in sorted(self._decisions)}
        data = {"format": _FORMAT, "context": self.context, "layers": layers}
        with written_whole(self.path) as file:
            file.write_text(json.dumps(data, indent=1), encoding="utf-8")

    def _warn(self, what: str) -> None:
        warnings.warn(f"tuning cache {self.path} {what}", stacklevel=3)
