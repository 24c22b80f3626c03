"""The README is true: its Python runs, its tables are those of the code, its files and commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import graphprune.torch_compile  # noqa: F401  # does what the entry point of an installed graphprune does

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    namespace: dict[str, object] = {}
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "resnet18.gp").exists()
    small, model = namespace["small"], namespace["model"]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]


def test_tables_are_current():
    command = [sys.executable, "scripts/update_readme.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    assert result.returncode == 0, f"run `python scripts/update_readme.py`\n{result.stderr}"


def test_linked_files_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_commands_and_make_targets_exist():
    from graphprune.cli.main import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert set(re.findall(r"^graphprune (\w+)", TEXT, re.MULTILINE)) == commands
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make (\w+)`", TEXT))
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}
