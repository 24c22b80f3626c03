"""Turns a model into a canonical ATen-level ``torch.fx.GraphModule``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from graphprune.canonicalize import canonicalize
from graphprune.errors import TraceError
from graphprune.graph import GraphInfo, get_attribute, is_traced, set_graph_info, share_graph_module
from graphprune.tracing.parts import evaluating, export_quietly
from graphprune.tracing.trace_errors import trace_error


def trace(
    model: nn.Module | fx.GraphModule | ExportedProgram,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> fx.GraphModule:
    """Trace ``model`` in evaluation mode to a canonical ATen graph.

    Args:
        model: an ``nn.Module``, a ``GraphModule`` (also from ``symbolic_trace``) or an ``ExportedProgram``. A graph
            made by graphprune is returned as it is, or, if it is training, an evaluating one on the same parameters.
        example_inputs: tuple of positional inputs; ignored for an ``ExportedProgram``, which carries its own.
        example_kwargs: keyword inputs.
        dynamic_shapes: as in ``torch.export.export``.

    Returns:
        A ``GraphModule`` that takes the same arguments and returns the same pytree as ``model``. Its parameters and
        buffers are ``get_attr`` nodes with the original names (and the same storage), and every node has
        ``meta["val"]``, a fake tensor. It is in evaluation mode: drop-out that the model's code leaves on even then is
        switched off too, and comes back with ``.train()``. Parameters that the model does not use are not in it.

    Raises:
        TraceError: if torch.export cannot trace the model with these inputs.
    """
    if is_traced(model):
        assert isinstance(model, fx.GraphModule)
        return share_graph_module(model).eval() if model.training else model
    program = (
        model if isinstance(model, ExportedProgram) else _export(model, example_inputs, example_kwargs, dynamic_shapes)
    )
    exported = program.module(check_guards=False)
    assert isinstance(exported, fx.GraphModule)
    gm = share_graph_module(canonicalize(exported)).eval()
    args, kwargs = program.example_inputs or ((), {})
    aliases = _aliases(model, gm) if isinstance(model, nn.Module) else {}
    set_graph_info(gm, GraphInfo(args, dict(kwargs), dynamic_shapes, aliases=aliases))
    _annotate_attributes(gm)
    return gm


def _aliases(model: nn.Module, gm: fx.GraphModule) -> dict[str, str]:
    """Return the names of tied parameters that export dropped, each with the name it kept."""
    kept = {name for name, _ in gm.named_parameters(remove_duplicate=False)}
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {
        name: next(name for name in group if name in kept)
        for group in names.values()
        for name in group
        if name not in kept and any(other in kept for other in group)
    }


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, dynamic_shapes: Any
) -> ExportedProgram:
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"cannot trace a {type(model).__name__}", hint="pass an nn.Module, GraphModule or ExportedProgram"
        )
    if not isinstance(args, tuple):
        raise TraceError(
            f"example_inputs must be a tuple, got {type(args).__name__}",
            hint="keyword inputs go into example_kwargs"
            if isinstance(args, Mapping)
            else "write example_inputs=(x,), with the comma",
        )
    try:
        with evaluating(model):
            return export_quietly(model, args, kwargs, dynamic_shapes)
    except Exception as error:  # torch.export raises dozens of unrelated types; all mean the same to the user
        raise trace_error(model, error, args, kwargs) from error


def _annotate_attributes(gm: fx.GraphModule) -> None:
    """Give ``get_attr`` nodes a ``meta["val"]`` and drop the training flag that export leaves on submodules."""
    for node in gm.graph.nodes:
        if node.op == "get_attr" and "val" not in node.meta:
            value = get_attribute(gm, str(node.target))
            if isinstance(value, torch.Tensor):
                node.meta["val"] = value
