"""Turns the words of the command line into models and example inputs."""

from __future__ import annotations

import importlib
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    from graphprune.pass_base import Pass

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="FILE.pt2 or package.module:name.")]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="A random example input, such as 1x3x224x224 or input_ids=1x128:int64; repeat it for several. "
        "Integers are drawn from 0 and 1.",
    ),
]
PassOption = Annotated[
    list[str] | None,
    typer.Option("--pass", "-p", metavar="SPEC", help="A pass, such as prune-channels{ratio=0.5}; repeat to chain."),
]

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")


@dataclass(frozen=True)
class LoadedModel:
    """A model with the inputs to trace and time it with."""

    name: str
    model: nn.Module | ExportedProgram
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def load_model(spec: str, inputs: Sequence[str] | None) -> LoadedModel:
    """Load what ``spec`` names, with random example inputs as ``--input`` describes them, or those it comes with.

    Raises:
        typer.BadParameter: if there is no such file, module or name, or there are no example inputs.
    """
    loaded = _load_file(Path(spec)) if spec.endswith(".pt2") else _load_attribute(spec)
    if inputs:
        args, kwargs = example_inputs(inputs)
        loaded = LoadedModel(loaded.name, loaded.model, args, kwargs)
    if not loaded.args and not loaded.kwargs:
        raise typer.BadParameter(f"{spec} comes without example inputs: give each as in --input 1x3x224x224")
    return loaded


def _load_file(path: Path) -> LoadedModel:
    import torch

    import graphprune.ops  # noqa: F401  # a pruned model may call graphprune's own ops

    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise typer.BadParameter(f"{path} is not a file saved by torch.export: it is no archive")
    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive can fail in any layer of the reader
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise typer.BadParameter(f"{path} is not a file saved by torch.export: {reason}") from error
    args, kwargs = program.example_inputs or ((), {})
    return LoadedModel(path.stem, program, tuple(args), dict(kwargs))


def _load_attribute(spec: str) -> LoadedModel:
    from torch import nn

    module_name, colon, name = spec.partition(":")
    if not colon or not name:
        raise typer.BadParameter(f"{spec!r} is neither a .pt2 file nor package.module:name")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"cannot import {module_name}: {error}") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise typer.BadParameter(f"{module_name} has no {name}")
        value = getattr(value, part)
    made = value if isinstance(value, nn.Module) or not callable(value) else value()
    model, *rest = made if isinstance(made, tuple) else (made,)
    if not isinstance(model, nn.Module) or len(rest) > 2:
        raise typer.BadParameter(f"{spec} gives a {type(made).__name__}, not a model or (model, args, kwargs)")
    return LoadedModel(name, model.eval(), *rest)


def example_inputs(specs: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named random tensors for ``[NAME=]SHAPE[:DTYPE]`` words, the same ones every time.

    Raises:
        typer.BadParameter: if a word cannot be read.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for spec in specs:
        match = _INPUT.fullmatch(spec)
        dtype = getattr(torch, match["dtype"] or "float32", None) if match else None
        if match is None or not isinstance(dtype, torch.dtype):
            raise typer.BadParameter(f"cannot read --input {spec!r}: write 1x3x224x224, or input_ids=1x128:int64")
        shape = [int(size) for size in match["shape"].split("x")]
        value = _random(shape, dtype, generator)
        if match["name"]:
            kwargs[match["name"]] = value
        else:
            args.append(value)
    return tuple(args), kwargs


def _random(shape: list[int], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    import torch

    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def read_passes(specs: Sequence[str] | None) -> list[Pass]:
    """Return the passes that ``--pass`` options spell.

    Raises:
        PassError: see :func:`graphprune.pass_spec.parse_pass`.
    """
    from graphprune.pass_spec import parse_pass

    return [parse_pass(spec) for spec in specs or ()]
