"""Says where in the user's code tracing failed, and which parts of the model can be traced without it."""

from __future__ import annotations

import inspect
import linecache
import re
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from graphprune.errors import TraceError
from graphprune.tracing.parts import Call, Part, first_calls, traceable_parts

_NOT_THE_USERS = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parent}/", "<")
_STANDARD_LIBRARY = f"{Path(inspect.__file__).parent}/"
_LONGEST = 240
_USUAL_CAUSES = (
    "run torch.export.export(model, example_inputs) alone to see the full report; "
    "data-dependent control flow and unsupported Python are the usual causes"
)
_MOST_PARTS = 4


def trace_error(
    model: nn.Module, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> TraceError:
    """Return the TraceError that tells why torch.export failed on ``model`` with ``error``, and what to do.

    The model is run on its inputs, and parts of it are traced, to tell wrong inputs from code that cannot be traced.
    """
    name = type(model).__name__
    scripted = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        where = f"its submodule {scripted[0]!r} is" if scripted[0] else "it is"
        return TraceError(
            f"torch.export could not trace {name}: {where} a torch.jit module, whose code is compiled",
            hint="build the model from the Python modules, without torch.jit.script and torch.jit.trace",
        )
    calls = {}
    if not _without_values(model, args, kwargs):
        try:
            calls = first_calls(model, args, kwargs or {})
        except Exception as own:  # whatever the model raises is what the user has to know
            return TraceError(
                f"torch.export could not trace {name}, which does not run on these inputs either: {_summary(own)}",
                source=_users_line(own),
                hint="check the number, the shapes and the dtypes of the example inputs"
                if args or kwargs
                else "pass example_inputs=(...), tensors of the shapes and dtypes that the model will be called with",
            )
    failed = _failing_module(error, model)
    place = f" (in its submodule {failed!r})" if failed else ""
    return TraceError(
        f"torch.export could not trace {name}{place}: {_summary(error)}",
        source=_users_line(error),
        hint=_hint(model, error, calls, failed),
    )


def _without_values(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bool:
    tensors = [*model.parameters(), *model.buffers(), *tree_leaves((args, dict(kwargs or {})))]
    return any(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors)


def _users_line(error: Exception) -> str | None:
    return next((_describe(frame, number) for frame, number in _frames(error) if _is_users(frame)), None)


def _failing_module(error: Exception, model: nn.Module) -> str | None:
    """Return the name of the innermost submodule in whose code it happened, "" for the model's own; None if in none."""
    return next((module for frame, _ in _frames(error) if (module := _module_of(frame, model)) is not None), None)


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames in which ``error`` and what it was raised from happened, innermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in reversed(chain):
        yield from reversed(list(traceback.walk_tb(link.__traceback__)))


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    standard = file.startswith(_STANDARD_LIBRARY) and "/site-packages/" not in file
    return not standard and not file.startswith(_NOT_THE_USERS) and "/sympy/" not in file


def _describe(frame: FrameType, number: int) -> str:
    file = frame.f_code.co_filename
    return f"{file}:{number}: {linecache.getline(file, number).strip()}"


def _module_of(frame: FrameType, model: nn.Module) -> str | None:
    """Return the name of the submodule whose method runs in ``frame``, if it is one of ``model``."""
    module = frame.f_locals.get("self")
    if not isinstance(module, nn.Module):
        return None
    return next((name for name, candidate in model.named_modules() if candidate is module), None)


def _summary(error: Exception, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"\(unhinted:.*?\)\.?  *", "", " ".join(lines[:count]))
    return f"{type(error).__name__}: {textwrap.shorten(text, _LONGEST, placeholder=' ...')}"


def _hint(model: nn.Module, error: Exception, calls: Mapping[str, Call], failed: str | None) -> str:
    if "register a pytree" in str(error):
        return (
            "call torch.export.register_dataclass on the class that the model takes or returns, or have it return "
            "tensors only (transformers: use_cache=False leaves out caches)"
        )
    parts = [] if failed is None else traceable_parts(model, calls, failed)
    return f"{_advice(model, parts)}; {_USUAL_CAUSES}" if parts else _USUAL_CAUSES


def _advice(model: nn.Module, parts: list[Part]) -> str:
    total = sum(p.numel() for p in model.parameters())
    listed = ", ".join(f"{part.name} ({part.parameters / total:.0%})" for part in parts[:_MOST_PARTS])
    first = re.sub(r"\.(\d+)", r"[\1]", f"model.{parts[0].name}")
    return (
        f"parts that can be pruned on their own, with their shares of the parameters: {listed}; for example "
        f"{first} = graphprune.prune({first}, ..., {parts[0].example_inputs()}), with dynamic_shapes if sizes vary"
    )
