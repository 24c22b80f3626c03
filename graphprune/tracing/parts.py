"""Finds the parts of a model that torch.export can trace where the whole cannot be traced."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map

Call = tuple[tuple[Any, ...], dict[str, Any]]
_MOST_TRIALS = 6
_WORTH_A_TRIAL = 0.01


@dataclass(frozen=True)
class Part:
    """A submodule that can be traced alone.

    Attributes:
        name: path of the submodule.
        parameters: number of its parameters.
        inputs: the positional and keyword arguments that the model called it with first.
    """

    name: str
    parameters: int
    inputs: Call

    def example_inputs(self) -> str:
        """Return the inputs as one would write them for ``prune``: ``(torch.rand(1, 3, 96, 96),)``."""
        args, kwargs = tree_map(_described, self.inputs)
        return f"{args}, {kwargs}" if kwargs else f"{args}"


class _Code(str):
    """Prints without quotes inside of containers."""

    __repr__ = str.__str__


def _described(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    shape = ", ".join(map(str, value.shape)) or "()"
    floats = value.is_floating_point()
    dtype = "" if value.dtype == torch.float32 else f", dtype={value.dtype}"
    return _Code(f"torch.{'rand' if floats else 'zeros'}({shape}{dtype})")


def first_calls(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Call]:
    """Run ``model`` in evaluation mode and return, by name, what each submodule was called with first.

    Raises:
        Exception: what the model raises.
    """
    calls: dict[str, Call] = {}

    def record(name: str) -> Any:
        return lambda module, args, kwargs: calls.setdefault(name, (args, kwargs)) and None

    hooks = [
        module.register_forward_pre_hook(record(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), evaluating(model):
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def traceable_parts(model: nn.Module, calls: Mapping[str, Call], failed: str) -> list[Part]:
    """Return the largest parts with something to prune that torch.export traces, largest first.

    Args:
        model: that it does not trace.
        calls: the inputs of its submodules.
        failed: name of the submodule whose code cannot be traced, "" for the model itself.
    """
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    ancestors = [name for name in sizes if name in ("", failed) or failed.startswith(f"{name}.")]
    untraceable = {type(model.get_submodule(name)) for name in ancestors}
    parts: list[Part] = []
    waiting = [""]
    trials = 0
    while waiting and trials < _MOST_TRIALS:
        waiting.sort(key=lambda name: -sizes[name])
        name = waiting.pop(0)
        module = model.get_submodule(name)
        if name in calls and type(module) not in untraceable and _has_inner_axes(module):
            trials += 1
            program = _traced(module, calls[name])
            if program is not None and _layers_follow_each_other(program):
                parts.append(Part(name, sizes[name], calls[name]))
                continue
            if program is None:
                untraceable.add(type(module))
        children = (f"{name}.{child}".lstrip(".") for child, _ in module.named_children())
        waiting += [child for child in children if sizes[child] > _WORTH_A_TRIAL * sizes[""]]
    return parts


def _has_inner_axes(module: nn.Module) -> bool:
    """Say whether there are two layers, which have something between them that can go if one reads the other."""
    return sum(parameter.dim() > 1 for parameter in module.parameters()) > 1


def _traced(module: nn.Module, call: Call) -> ExportedProgram | None:
    try:
        with evaluating(module):
            return export_quietly(module, *call)
    except Exception:  # whatever the reason, this part is not to be recommended
        return None


def _layers_follow_each_other(program: ExportedProgram) -> bool:
    """Say whether one layer reads what another computed: layers side by side have no units that could go."""
    parameters = program.graph_signature.inputs_to_parameters
    weights: set[fx.Node] = set()
    computed: set[fx.Node] = set()
    for node in program.graph.nodes:
        operands = set(node.all_input_nodes)
        if (node.name in parameters and node.meta["val"].dim() > 1) or (operands and operands <= weights):
            weights.add(node)
        elif operands & computed:
            if operands & weights:
                return True
            computed.add(node)
        elif operands & weights:
            computed.add(node)
    return False


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode for a while."""
    training = {module: module.training for module in model.modules()}
    try:
        if isinstance(model, fx.GraphModule):
            nn.Module.train(model, False)  # .eval() raises on graphs that torch.export made
        else:
            model.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def export_quietly(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, dynamic_shapes: Any = None
) -> ExportedProgram:
    """Call torch.export, which prints the whole graph up to a failure, thousands of lines, without that print."""
    printed = io.StringIO()
    graph = ""
    try:
        with redirect_stderr(printed):
            return torch.export.export(model, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        graph = f"{getattr(error, 'partial_fx_graph', '')}\n"
        raise
    finally:
        sys.stderr.write(printed.getvalue().replace(graph, "") if graph else printed.getvalue())
