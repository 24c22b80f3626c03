"""Every way of installing graphprune gives every module, graphprune.passes among them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LIST_MODULES = """
import json, pathlib, pkgutil, graphprune, graphprune.passes
names = [module.name for module in pkgutil.walk_packages(graphprune.__path__, "graphprune.", onerror=lambda name: None)]
assets = pathlib.Path(graphprune.__file__).parent / "drawing" / "assets"
found = sorted(path.name for path in assets.iterdir())
print(json.dumps({"file": graphprune.passes.__file__, "modules": sorted(names), "assets": found}))
"""


def listed_packages() -> set[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return set(tomllib.load(file)["tool"]["setuptools"]["packages"])


def packages_in_tree() -> set[str]:
    found = set()
    for top, name in ((ROOT / "graphprune", "graphprune"), (ROOT / "passes", "graphprune.passes")):
        for directory, children, files in os.walk(top):
            children[:] = [child for child in children if child != "__pycache__"]
            if any(file.endswith(".py") for file in files):
                found.add(".".join([name, *Path(directory).relative_to(top).parts]))
    return found


def modules_in_tree() -> set[str]:
    names = set()
    for top, name in ((ROOT / "graphprune", "graphprune"), (ROOT / "passes", "graphprune.passes")):
        for path in top.rglob("*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            if "passes" in parts[:1] and name == "graphprune":
                continue
            names.add(".".join([name, *(parts[:-1] if parts[-1] == "__init__" else parts)]))
    return names - {"graphprune"}


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def copy_sources(destination: Path) -> Path:
    """Copy what git would have in a clone, so that building leaves nothing behind in this one."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*", "*.gp")
    shutil.copytree(ROOT, destination, symlinks=True, ignore=ignore)
    return destination


def empty_environment(path: Path) -> Path:
    """Make a virtual environment that sees the dependencies of this one but no installation of graphprune."""
    venv.create(path, with_pip=False)
    python = path / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=path).strip())
    # A path in a .pth file is added without reading the .pth files in it, so an editable graphprune there stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *arguments: str | Path, cwd: Path) -> dict:
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation",
        "--ignore-installed", *arguments, cwd=cwd)  # fmt: skip
    return json.loads(run(python, "-c", LIST_MODULES, cwd=cwd))


def build(kind: str, source: Path, destination: Path) -> Path:
    run(
        sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", destination, source, cwd=source.parent
    )
    (result,) = destination.iterdir()
    return result


def test_every_package_directory_is_listed():
    assert packages_in_tree() == listed_packages()


@pytest.mark.parametrize("way", ["wheel", "wheel from sdist", "editable"])
def test_installation_has_every_module(way: str, tmp_path: Path):
    source = copy_sources(tmp_path / "source")
    python = empty_environment(tmp_path / "environment")
    if way == "wheel":
        installed = install(python, build("wheel", source, tmp_path / "dist"), cwd=tmp_path)
    elif way == "wheel from sdist":
        sdist = build("sdist", source, tmp_path / "sdist")
        unpacked = tmp_path / "unpacked"
        shutil.unpack_archive(sdist, unpacked)
        (tree,) = unpacked.iterdir()
        installed = install(python, build("wheel", tree, tmp_path / "dist"), cwd=tmp_path)
    else:
        installed = install(python, "--editable", source, cwd=tmp_path)

    assert Path(installed["file"]).resolve().is_relative_to(tmp_path.resolve())
    assert set(installed["modules"]) == modules_in_tree()
    assert installed["assets"] == sorted(path.name for path in (ROOT / "graphprune" / "drawing" / "assets").iterdir())


def test_console_script_starts(tmp_path: Path):
    python = empty_environment(tmp_path / "environment")
    install(python, copy_sources(tmp_path / "source"), cwd=tmp_path)
    assert "graphprune" in run(python.parent / "graphprune", "--version", cwd=tmp_path)
