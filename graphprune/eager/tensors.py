"""Puts the smaller tensors of a shrunk graph in the place of the larger ones of a module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx, nn

from graphprune.errors import MaskError
from graphprune.graph import attribute_tensors, graph_info, set_attribute


def changed_tensors(
    model: nn.Module, gm: fx.GraphModule, small: fx.GraphModule, masked: Collection[str]
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Return (path, tensor of ``model``, its successor) for every tensor that ``small`` holds smaller or ``masked``.

    A constant that the model's code makes anew in every call is not the model's, and left out.
    """
    found = []
    after = attribute_tensors(small)
    for path, before in attribute_tensors(gm).items():
        if path not in after or (after[path].shape == before.shape and path not in masked):
            continue
        own = _lookup(model, path)
        if isinstance(own, torch.Tensor) and own.shape == before.shape:
            found.append((path, own, _successor(own, after[path])))
    return found


def replace_tensors(model: nn.Module, pairs: list[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
    """Replace tensors by their successors wherever a module of ``model`` holds them, under any name.

    Parameters that were one object are one object afterwards. A list, tuple or dict of tensors that a module keeps
    (as ``nn.LSTM`` does) is replaced by a new one.
    """
    successors = {id(old): new for _, old, new in pairs}
    for module in model.modules():
        registries: list[dict[str, Any]] = [module._parameters, module._buffers]
        for registry in registries:
            for name, value in registry.items():
                if id(value) in successors:
                    registry[name] = successors[id(value)]
        for name, value in vars(module).items():
            if not name.startswith("_") or name == "_flat_weights":
                module.__dict__[name] = _replaced(value, successors)


def zero_weights(gm: fx.GraphModule, masks: Mapping[str, torch.Tensor]) -> None:
    """Replace the weights of a graph that ``masks`` (True: kept) do not keep by zeros, in new parameters.

    Raises:
        MaskError: if a mask is for a parameter that the graph does not have, or of another shape.
    """
    tensors = attribute_tensors(gm)
    aliases = graph_info(gm).aliases
    for path, mask in masks.items():
        own = tensors.get(aliases.get(path, path))
        if own is None or own.shape != mask.shape:
            raise MaskError(f"the plan's weight mask of {path} does not fit the model", hint="make the plan anew")
        zeroed = _successor(own, own.detach().masked_fill(~mask.to(own.device), 0))
        for name, tensor in tensors.items():
            if tensor is own:
                set_attribute(gm, name, zeroed)
                tensors[name] = zeroed


def _lookup(model: nn.Module, path: str) -> Any:
    value: Any = model
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _successor(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return ``new`` as the same kind of tensor as ``old``: parameter or not, with its flags and memory format."""
    tensor = new.detach()
    if tensor.dim() == 4 and not old.is_contiguous() and old.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    if isinstance(old, nn.Parameter):
        tensor = nn.Parameter(tensor, old.requires_grad)
    for name, value in vars(old).items():
        setattr(tensor, name, value)
    return tensor


def _replaced(value: Any, successors: Mapping[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return successors.get(id(value), value)
    if type(value) in (list, tuple) and any(id(item) in successors for item in value):
        return type(value)(successors.get(id(item), item) for item in value)
    if type(value) is dict and any(id(item) in successors for item in value.values()):
        return {key: successors.get(id(item), item) for key, item in value.items()}
    return value
