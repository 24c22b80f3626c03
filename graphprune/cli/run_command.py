"""``graphprune run``: run a compiled artifact on arrays from files; PyTorch is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from graphprune.cli.screen import JsonFlag, print_json, print_table

ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What graphprune compile wrote.")]


def run(
    artifact: ArtifactArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="[NAME=]FILE",
            help="An array as .npy, or several by name as .npz; without any, random ones of the right shapes.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the outputs here, as .npz.")] = None,
    show_profile: Annotated[bool, typer.Option("--profile", help="Also print the time of each kernel call.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run ARTIFACT once and print, or save, its outputs."""
    if output is not None and output.suffix != ".npz":
        raise typer.BadParameter(f"--output must end in .npz, got {output}")
    positional, named = read_arrays(inputs or ())
    from graphprune import runtime
    from graphprune.structure import unflatten

    model = runtime.load(artifact)
    specs = model.signature.inputs
    arrays = arrange(specs, positional, named) if inputs else random_arrays(specs)
    args, kwargs = unflatten(model.signature.input_structure, arrays)
    outputs = _named_arrays(model(*args, **kwargs))
    if output is not None:
        np.savez(output, **outputs)  # type: ignore[arg-type]
    rows = [(name, "x".join(map(str, a.shape)), str(a.dtype), *_range(a)) for name, a in outputs.items()]
    columns = ("output", "shape", "dtype", "least", "mean", "greatest")
    profile = model.profile(*args, **kwargs) if show_profile else None
    if as_json:
        results = [dict(zip(columns, row)) for row in rows]
        print_json({"outputs": results, "profile": profile.as_dict()} if profile else results)
        return
    print_table(f"outputs of {artifact}", columns, rows)
    if profile:
        print(profile)


def read_arrays(words: Sequence[str]) -> tuple[list[NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the arrays in files named by ``[NAME=]FILE`` words: those without a name, and those with one.

    Raises:
        typer.BadParameter: if a file is missing, or is neither .npy nor .npz.
    """
    positional: list[NDArray[Any]] = []
    named: dict[str, NDArray[Any]] = {}
    for word in words:
        name, equals, file = word.rpartition("=")
        try:
            content = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"cannot read {file} as .npy or .npz: {error}") from error
        if isinstance(content, Mapping):
            named |= {key: content[key] for key in content}
        elif equals:
            named[name] = content
        else:
            positional.append(content)
    return positional, named


def arrange(
    specs: Sequence[Any], positional: Sequence[NDArray[Any]], named: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Return one array for each input: named ones by name, the rest in order.

    Raises:
        typer.BadParameter: if there are too many, too few, or an unknown name.
    """
    names = [spec.name for spec in specs]
    unknown = sorted(set(named) - set(names))
    rest = list(positional)
    arrays = [named[name] if name in named else rest.pop(0) if rest else None for name in names]
    missing = [name for name, array in zip(names, arrays) if array is None]
    if unknown or rest or missing:
        problem = f"no input is called {unknown[0]!r}" if unknown else f"{len(rest)} arrays too many"
        problem = f"no array for {', '.join(missing)}" if missing and not unknown else problem
        raise typer.BadParameter(f"{problem}; the inputs are {', '.join(names)}")
    return [array for array in arrays if array is not None]


def random_arrays(specs: Sequence[Any]) -> list[NDArray[Any]]:
    """Return random arrays, the same ones every time: normal floats, integers 0 and 1."""
    generator = np.random.default_rng(0)
    arrays = []
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        is_float = np.issubdtype(dtype, np.floating)
        value = generator.standard_normal(spec.shape) if is_float else generator.integers(0, 2, spec.shape)
        arrays.append(value.astype(dtype))
    return arrays


def _named_arrays(result: Any, name: str = "output") -> dict[str, NDArray[Any]]:
    """Flatten nested results to arrays by dotted names."""
    if isinstance(result, Mapping):
        items = result.items()
    elif isinstance(result, (tuple, list)):
        items = enumerate(result)
    else:
        return {} if result is None else {name: np.asarray(result)}
    return {key: a for part, value in items for key, a in _named_arrays(value, f"{name}.{part}").items()}


def _range(array: NDArray[Any]) -> tuple[float | None, float | None, float | None]:
    if array.size == 0:
        return None, None, None
    return float(array.min()), float(array.mean()), float(array.max())
