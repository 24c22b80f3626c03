"""Saves pruned models as a plan and a state dict, and loads them into fresh models of the original code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from graphprune.eager.apply import Inputs, apply_to_traced, undone_on_failure
from graphprune.eager.conversion import load_converted
from graphprune.errors import ArtifactError
from graphprune.fingerprint import fingerprint
from graphprune.graph import graph_info, is_traced
from graphprune.manifest import file_digest
from graphprune.plans import Plan
from graphprune.whole_files import written_whole

PLAN_FILE = "graphprune.plan"
WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_DIGEST, _SOURCE = "graphprune.plan_sha256", "graphprune.source"

State = Mapping[str, torch.Tensor]


def save_pruned(model: nn.Module, plan: Plan, folder: str | Path) -> None:
    """Write the plan and the weights of a pruned module or graph to ``folder``, each file whole or not at all.

    Other files of the folder stay. The weights name the plan they belong to, so that a pair torn apart by a crash
    between the two files is noticed when it is loaded. Tied parameters are written once.

    >>> plan.apply_(model, (x,))
    >>> graphprune.save_pruned(model, plan, "small")
    >>> model = graphprune.load_pruned(make_model(), "small", example_inputs=(x,))
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / PLAN_FILE)
    metadata = {
        "format": "pt",
        _SOURCE: "graph" if is_traced(model) else "module",
        _DIGEST: _digest(folder / PLAN_FILE),
    }
    with written_whole(folder / WEIGHTS_FILE) as file:
        save_file(_without_ties(model), file, metadata=metadata)


def load_pruned(
    model: nn.Module,
    plan: Plan | str | Path,
    state: State | str | Path | None = None,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> nn.Module:
    """Make a fresh model of the original code as small as a saved one, load its weights, and return it.

    >>> model = timm.create_model("resnet50")
    >>> graphprune.load_pruned(model, "half.plan", "half.safetensors", example_inputs=(x,))
    >>> model = AutoModel.from_config(AutoConfig.from_pretrained("folder"))  # after model.save_pretrained("folder")
    >>> graphprune.load_pruned(model, "half.plan", "folder", example_kwargs={"input_ids": ids})

    Args:
        model: changed in place. If it has the sizes of the saved weights already, the plan is not applied.
        plan: a plan, its file, or a folder of :func:`save_pruned`.
        state: a state dict; a file of safetensors or ``torch.save``; or a folder with ``model.safetensors`` (also one
            written by ``save_pretrained``). Default: the folder given as ``plan``.
        example_inputs, example_kwargs, dynamic_shapes: those that the plan was made with.

    Raises:
        ArtifactError: if files are missing or broken, or names or shapes do not fit. The model stays as it was.
        HardCodedSizeError, MaskError: see :meth:`graphprune.plans.Plan.apply_`. The model stays as it was.
    """
    plan_path = None if isinstance(plan, Plan) else Path(plan)
    if plan_path is not None and plan_path.is_dir():
        state = plan_path if state is None else state
        plan_path = plan_path / PLAN_FILE
    if state is None:
        raise ArtifactError("no state dict was given", hint="pass one, or its file, as the third argument")
    tensors, metadata = _read(state)
    if plan_path is not None and metadata.get(_DIGEST, _digest(plan_path)) != _digest(plan_path):
        raise ArtifactError(f"{plan_path} is not the plan that {state} was saved with", hint="save both anew")
    loaded = plan if isinstance(plan, Plan) else Plan.load(plan_path or plan)
    with undone_on_failure(model):
        surplus = [name for name in tensors if name not in model.state_dict()]
        layers_are_missing = bool(loaded.layers) and any(name not in tensors for name in _without_ties(model))
        if _misfits(model, tensors) or surplus or layers_are_missing:
            inputs = Inputs(example_inputs, dict(example_kwargs or {}), dynamic_shapes)
            gm = inputs.trace(model)
            if _misfits(model, tensors) or fingerprint(gm) == loaded.fingerprint:
                apply_to_traced(loaded, model, gm, inputs)
        if surplus and load_converted(model, tensors):
            return model
        _load(model, tensors, metadata)
    return model


def _load(model: nn.Module, tensors: State, metadata: Mapping[str, str]) -> None:
    """Copy ``tensors`` into the model after checking all names and shapes."""
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in tensors if name in own}
    missing = [name for name, value in own.items() if id(value) not in given]
    surplus = [name for name in tensors if name not in own]
    if metadata.get(_SOURCE) == "graph":  # it has constants and lacks what the model does not use
        missing, surplus = [], []
    misfits = _misfits(model, tensors)
    for problem, names in (("lacks", missing), ("has unknown", surplus), ("has other shapes for", misfits)):
        if names:
            raise ArtifactError(
                f"the state dict {problem} {len(names)} tensors: {', '.join(names[:4])}",
                hint="load into a fresh model of the code, options and example inputs that the plan was made with",
            )
    with torch.no_grad():
        model.load_state_dict({name: value for name, value in tensors.items() if name in own}, strict=False)


def _misfits(model: nn.Module, tensors: State) -> list[str]:
    own = model.state_dict(keep_vars=True)
    return [name for name, value in tensors.items() if name in own and own[name].shape != value.shape]


def _without_ties(model: nn.Module) -> dict[str, torch.Tensor]:
    kept: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            kept.setdefault(id(value), (name, value))
    written = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in kept.values()}
    if is_traced(model):  # a graph knows one name of a tied parameter; write it under the names of the module
        for alias, name in graph_info(model).aliases.items():
            if name in written:
                written[alias] = written[name].clone()
    return written


def _read(state: State | str | Path) -> tuple[State, Mapping[str, str]]:
    """Return tensors by name, and the metadata of the file they are from."""
    if isinstance(state, Mapping):
        return state, {}
    path = Path(state)
    try:
        if path.is_dir() and (path / _INDEX_FILE).exists():
            shards = set(json.loads((path / _INDEX_FILE).read_text())["weight_map"].values())
            return {name: t for shard in sorted(shards) for name, t in _read(path / shard)[0].items()}, {}
        if path.is_dir():
            path = path / WEIGHTS_FILE
        if path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True), {}
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise ArtifactError(f"cannot read weights from {path}: {error}", hint="write them with save_pruned") from error


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise ArtifactError(f"cannot read the plan {path}: {error}", hint="write it with Plan.save") from error
