"""What a batch of calibration data may be, and how it reaches a traced graph.

A batch is one of:

- a tensor: the only positional input;
- a mapping: inputs by name; keys that the graph does not take (``labels``) are left for the loss to read;
- a tuple or list ``(inputs,)`` or ``(inputs, targets, ...)``: ``inputs`` is a tensor, a tuple of positional inputs, or
  a mapping as above, and what follows is left for the loss. A model of two inputs and no target is fed ``((a, b),)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from torch import fx
from torch.utils._pytree import tree_leaves, tree_map_only

from graphprune.errors import PassError
from graphprune.graph import graph_info
from graphprune.progress_bar import progress_bar


def split_batch(gm: fx.GraphModule, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword inputs of ``gm`` in ``batch``; the module's docstring says what is what.

    Raises:
        PassError: if the batch is of no known form.
    """
    if isinstance(batch, (tuple, list)):
        if not batch:
            raise PassError("a batch is an empty sequence", hint="yield tensors, mappings or (inputs, targets) tuples")
        inputs = batch[0]
        if isinstance(inputs, (tuple, list)):
            return tuple(inputs), {}
    else:
        inputs = batch
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return _by_name(gm, inputs)
    raise PassError(
        f"a batch holds a {type(inputs).__name__} where inputs were expected",
        hint="yield tensors, mappings of input names to tensors, or (inputs, targets) tuples",
    )


def _by_name(gm: fx.GraphModule, inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positional, keywords = _signature(gm)
    missing = [name for name in [*positional, *keywords] if name not in inputs]
    if missing:
        raise PassError(
            f"a batch lacks the model's inputs {', '.join(missing)}; it has {', '.join(map(str, inputs))}",
            hint="give every input that the model was traced with",
        )
    return tuple(inputs[name] for name in positional), {name: inputs[name] for name in keywords}


def _signature(gm: fx.GraphModule) -> tuple[list[str], list[str]]:
    """Return the names of the positional and of the keyword inputs that ``gm`` was traced with."""
    information = getattr(gm.graph._codegen, "pytree_info", None)
    if information is None:
        return [str(node.target) for node in gm.graph.nodes if node.op == "placeholder"], []
    keywords = list(information.in_spec.child(1).context)
    count = information.in_spec.child(0).num_children
    return list(information.orig_args)[:count], keywords


def example_batch(gm: fx.GraphModule) -> Any:
    """Return the inputs that ``gm`` was traced with as a batch."""
    info = graph_info(gm)
    if not info.example_kwargs:
        return (info.example_args,)
    return dict(zip(_signature(gm)[0], info.example_args, strict=True)) | info.example_kwargs


def device_of(gm: fx.GraphModule) -> torch.device | None:
    """Return the one device that ``gm``'s parameters are on, or None if there are none or several."""
    devices = {parameter.device for parameter in gm.parameters()}
    return devices.pop() if len(devices) == 1 else None


def batches_of(gm: fx.GraphModule, data: Iterable[Any], limit: int | None, description: str) -> Iterator[Any]:
    """Yield up to ``limit`` batches of ``data`` on ``gm``'s device, with a progress bar if stderr is a terminal.

    Raises:
        PassError: if ``data`` is not iterable or yields nothing.
    """
    if not isinstance(data, Iterable):
        raise PassError(
            f"data is a {type(data).__name__}, not an iterable", hint="pass a list or DataLoader of batches"
        )
    device, count = device_of(gm), 0
    for batch in _with_progress(islice(data, limit), _length(data, limit), description):
        count += 1
        yield batch if device is None else tree_map_only(torch.Tensor, lambda t: t.to(device), batch)
    if not count:
        raise PassError(
            "data has no batches", hint="an iterator is used up after one pass over it: pass a list or a DataLoader"
        )


def _length(data: Iterable[Any], limit: int | None) -> int | None:
    length = len(data) if hasattr(data, "__len__") else None  # pyright: ignore[reportArgumentType]
    return min(known) if (known := [n for n in (length, limit) if n is not None]) else None


def _with_progress(items: Iterator[Any], total: int | None, description: str) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        yield from progress.track(items, total=total, description=description)


def placeholder_values(gm: fx.GraphModule, batch: Any) -> list[Any]:
    """Return the values of ``gm``'s placeholders for ``batch``, in order."""
    args, kwargs = split_batch(gm, batch)
    keywords = _signature(gm)[1]
    if list(kwargs) != keywords:
        raise PassError(
            f"a batch has no values for the keyword inputs {', '.join(keywords)}",
            hint="give a mapping of every input by name",
        )
    return tree_leaves((args, kwargs))
