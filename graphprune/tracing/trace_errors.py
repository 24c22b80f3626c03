"""Says where in the user's code tracing failed, and which parts of the model can be traced without it."""

from __future__ import annotations

import linecache
import re
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from graphprune.errors import TraceError

_NOT_THE_USERS = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parent}/", "<")
_LONGEST = 240
_USUAL_CAUSES = (
    "run torch.export.export(model, example_inputs) alone to see the full report; wrong input shapes, "
    "data-dependent control flow and unsupported Python are the usual causes"
)


def trace_error(model: nn.Module, error: Exception) -> TraceError:
    """Return the TraceError that tells why torch.export failed on ``model`` with ``error``, and what to do."""
    scripted = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        where = f"its submodule {scripted[0]!r} is" if scripted[0] else "it is"
        return TraceError(
            f"torch.export could not trace {type(model).__name__}: {where} a torch.jit module, whose code is compiled",
            hint="build the model from the Python modules, without torch.jit.script and torch.jit.trace",
        )
    frames = list(_frames(error))
    line = next((_describe(frame, number) for frame, number in frames if _is_users(frame)), None)
    failed = next((module for frame, _ in frames if (module := _module_of(frame, model))), None)
    place = "" if not failed else f" (in its submodule {failed!r})"
    return TraceError(
        f"torch.export could not trace {type(model).__name__}{place}: {_summary(error)}",
        source=line,
        hint=_hint(model, error, failed),
    )


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames in which ``error`` and what it was raised from happened, innermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in reversed(chain):
        yield from reversed(list(traceback.walk_tb(link.__traceback__)))


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return not file.startswith(_NOT_THE_USERS) and "/sympy/" not in file


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


def _hint(model: nn.Module, error: Exception, failed: str | None) -> str:
    if "register a pytree" in str(error):
        return (
            "call torch.export.register_dataclass on the class that the model takes or returns, or have it return "
            "tensors only (transformers: use_cache=False leaves out caches)"
        )
    depends_on_data = "data-dependent" in str(error) or "DataDependent" in type(error).__name__
    part = _largest_other_child(model, failed) if depends_on_data and failed is not None else None
    if part is None:
        return _USUAL_CAUSES
    return (
        f"trace the parts without that line: small = prune(model.{part}, ..., its inputs), then model.{part} = small; "
        + _USUAL_CAUSES
    )


def _largest_other_child(model: nn.Module, failed: str) -> str | None:
    """Return the child with the most parameters of those that the failing code is not in, or None."""
    sizes = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in model.named_children()
        if failed != name and not failed.startswith(f"{name}.")
    }
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    return largest if largest is not None and sizes[largest] else None
