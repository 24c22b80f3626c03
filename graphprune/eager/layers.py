"""Leaves layers of an ordinary module out: each becomes a module that returns what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from graphprune.errors import HardCodedSizeError
from graphprune.plans import RemovedLayer

HINT = (
    "in place, layers can go that are a module of their own, with one tensor in and one out "
    "(PruneLayers(granularity='block')); or use the graph that graphprune.prune returns"
)


@dataclass(frozen=True)
class PassThrough:
    """Takes the place of a module's ``forward``: returns the tensor it is given, in the form of the old result.

    Attributes:
        argument: position or name of the tensor among the arguments.
        others: the old result with None in the tensor's place, if it was a tuple or list.
        position: of the tensor among ``others``.
    """

    argument: int | str
    others: tuple[Any, ...] | list[Any] | None = None
    position: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result for a call's arguments."""
        value = args[self.argument] if isinstance(self.argument, int) else kwargs[self.argument]
        if self.others is None:
            return value
        return type(self.others)(value if i == self.position else item for i, item in enumerate(self.others))


def leave_out(
    model: nn.Module, layers: Iterable[RemovedLayer], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Empty the modules of ``layers`` and let them return what they are given; whether results agree is not checked.

    Args:
        model: runs once, as it is.
        layers: of a plan for this model.
        args, kwargs: to run the model with.

    Raises:
        HardCodedSizeError: if a layer is no module, is called more than once, or does not return one tensor.
    """
    modules = {layer: _module(model, layer) for layer in layers}
    forms: dict[nn.Module, list[PassThrough | str]] = {module: [] for module in modules.values()}
    hooks = [module.register_forward_hook(partial(_note, forms), with_kwargs=True) for module in forms]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, module in modules.items():
        found = forms[module]
        if len(found) != 1:
            raise HardCodedSizeError(f"{layer.module} is called {len(found)} times", hint=HINT)
        if isinstance(found[0], str):
            raise HardCodedSizeError(f"{layer.module} {found[0]}", hint=HINT)
        for registry in (module._parameters, module._buffers, module._modules):
            registry.clear()
        module.__dict__["forward"] = found[0]


def _module(model: nn.Module, layer: RemovedLayer) -> nn.Module:
    try:
        module = model.get_submodule(layer.module)
    except AttributeError:
        module = model
    if module is model:
        raise HardCodedSizeError(f"{layer.title} is no module of the model", hint=HINT)
    return module


def _note(
    forms: dict[nn.Module, list[PassThrough | str]], module: nn.Module, args: Any, kwargs: Any, output: Any
) -> None:
    forms[module].append(_form(args, kwargs, output))


def _form(args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> PassThrough | str:
    """Return what passes a call's first tensor of its result's shape through, or why nothing does."""
    items = output if type(output) in (tuple, list) else (output,)
    tensors = [i for i, item in enumerate(items) if isinstance(item, torch.Tensor)]
    if len(tensors) != 1:
        return f"returns {len(tensors)} tensors"
    result = items[tensors[0]]
    for argument, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, torch.Tensor) and value.shape == result.shape and value.dtype == result.dtype:
            if items is not output:
                return PassThrough(argument)
            others = type(output)(None if i == tensors[0] else item for i, item in enumerate(output))
            return PassThrough(argument, others, tensors[0])
    return f"takes no tensor of the shape of its result, {list(result.shape)}"
