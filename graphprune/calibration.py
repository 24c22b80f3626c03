"""Runs batches of data through a traced graph to gather gradients or statistics, and leaves the graph as it was.

Batches are of the forms that :mod:`graphprune.batches` lists. A loss is called as ``loss(output, batch)`` with the
whole batch and returns a scalar tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import fx

from graphprune.batches import batches_of, placeholder_values, split_batch
from graphprune.errors import PassError
from graphprune.graph import get_attribute
from graphprune.tracing.traced_module import remember_training_flags, set_training_flags

Loss = Callable[[Any, Any], torch.Tensor]


@contextmanager
def undisturbed(gm: fx.GraphModule, requiring_grad: Sequence[torch.Tensor] = ()) -> Iterator[None]:
    """Put ``gm`` in evaluation mode, gradients on for ``requiring_grad`` only; on leaving, restore every bit.

    Restored are training flags and modes, ``requires_grad`` and the values of buffers. Parameters and their ``grad``
    are never written, given that gradients are taken with ``torch.autograd.grad`` and not with ``backward``.
    """
    restore_flags = remember_training_flags(gm)
    modes = [(module, module.training) for module in gm.modules()]
    requirements = [(parameter, parameter.requires_grad) for parameter in gm.parameters()]
    values = [(tensor, tensor._version, tensor.detach().clone()) for tensor in gm.buffers()]
    wanted = {id(tensor) for tensor in requiring_grad}
    try:
        set_training_flags(gm, False)
        for parameter, _ in requirements:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        restore_flags()
        for module, mode in modes:
            module.training = mode
        for parameter, required in requirements:
            parameter.requires_grad_(required)
        with torch.no_grad():
            for tensor, version, value in values:
                if tensor._version != version:
                    tensor.copy_(value)


def mean_gradients(
    gm: fx.GraphModule,
    parameters: Sequence[str],
    data: Iterable[Any],
    loss: Loss,
    *,
    batches: int | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] = lambda gradient: gradient,
) -> dict[str, torch.Tensor]:
    """Return, for each parameter path, the mean over batches of ``transform(gradient of the loss)``.

    Gradients are taken in evaluation mode (no drop-out, batch norm with its running statistics) and summed in at least
    float32. A parameter that the loss does not depend on gets zeros.

    Raises:
        PassError: if the data is empty or misshapen, or the loss is not a finite scalar that depends on a parameter.
    """
    tensors = {path: get_attribute(gm, path) for path in parameters}
    distinct = {id(tensor): tensor for tensor in tensors.values()}
    for path, tensor in tensors.items():
        _require_trainable(path, tensor)
    sums = {
        key: torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32), requires_grad=False)
        for key, tensor in distinct.items()
    }
    count = 0
    with undisturbed(gm, list(distinct.values())), torch.enable_grad():
        for batch in batches_of(gm, data, batches, "gradients"):
            value = _differentiable_loss(gm, batch, count, loss)
            gradients = torch.autograd.grad(value, list(distinct.values()), allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += transform(gradient.detach().to(total.dtype))
            count += 1
    return {path: sums[id(tensor)] / count for path, tensor in tensors.items()}


def _require_trainable(path: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta:
        raise PassError(f"{path} is on the meta device and has no values", hint="load the weights before scoring them")
    if not tensor.is_floating_point():
        raise PassError(f"{path} is of {tensor.dtype}, which has no gradient", hint="score floating-point parameters")


def loss_of(gm: fx.GraphModule, batch: Any, index: int, loss: Loss) -> torch.Tensor:
    """Return the loss of the ``index``-th batch, a scalar tensor.

    Raises:
        PassError: if the model fails on the batch, or its loss is not a finite scalar.
    """
    value = loss(run_batch(gm, batch, index), batch)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise PassError(
            f"the loss of batch {index} is not a scalar but {shape}", hint="reduce it, for example with .mean()"
        )
    if not bool(torch.isfinite(value)):
        raise PassError(
            f"the loss of batch {index} is {value.item()}",
            hint="look for infinities and empty targets in the batch, or overflow in half precision",
        )
    return value.reshape(())


def _differentiable_loss(gm: fx.GraphModule, batch: Any, index: int, loss: Loss) -> torch.Tensor:
    value = loss_of(gm, batch, index, loss)
    if not value.requires_grad:
        raise PassError(
            f"the loss of batch {index} does not depend on any parameter that is scored",
            hint="compute it from the model's output, without detach() or no_grad()",
        )
    return value


def run_batch(gm: fx.GraphModule, batch: Any, index: int) -> Any:
    """Return the output of ``gm`` for ``batch``, the ``index``-th.

    Raises:
        PassError: if the model fails on it, usually because of a wrong shape.
    """
    args, kwargs = split_batch(gm, batch)
    return _run(partial(gm, **kwargs), args, index)


def _run(call: Callable[..., Any], args: Sequence[Any], index: int) -> Any:
    try:
        return call(*args)
    except Exception as error:
        raise PassError(
            f"the model failed on batch {index}: {type(error).__name__}: {error}",
            hint="inputs must have the shapes the model was traced with, except for dimensions given in dynamic_shapes",
        ) from error


class _Observer(fx.Interpreter):
    """Runs a graph and hands the value of each observed node to its callback as soon as it is computed."""

    def __init__(self, gm: fx.GraphModule, callbacks: Mapping[fx.Node, Callable[[torch.Tensor], None]]) -> None:
        super().__init__(gm)
        self._callbacks = callbacks

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._callbacks:
            self._callbacks[n](value)
        return value


def feature_norms(
    gm: fx.GraphModule, observed: Iterable[tuple[fx.Node, int]], data: Iterable[Any], *, batches: int | None = None
) -> dict[tuple[fx.Node, int], torch.Tensor]:
    """Return the L2 norm of each feature of some activations, over all their positions in all batches.

    Args:
        gm: a traced graph; it runs in evaluation mode.
        observed: pairs of a node and the axis of its value that holds the features.
        data: batches of those forms; targets are not looked at.
        batches: how many of them to use; None for all.

    Returns:
        For each pair a vector over the axis, in at least float32.

    Raises:
        PassError: if the data is empty or misshapen.
    """
    sums: dict[tuple[fx.Node, int], torch.Tensor] = {}
    axes: dict[fx.Node, set[int]] = {}
    for node, axis in observed:
        axes.setdefault(node, set()).add(axis)

    def observe(node: fx.Node, value: torch.Tensor) -> None:
        for axis in axes[node]:
            features = value.detach().movedim(axis, 0).flatten(1)
            squares = features.to(torch.promote_types(value.dtype, torch.float32)).square().sum(1)
            sums[node, axis] = sums[node, axis] + squares if (node, axis) in sums else squares

    observe_values(gm, {node: partial(observe, node) for node in axes}, data, batches=batches)
    return {key: total.sqrt() for key, total in sums.items()}


def observe_values(
    gm: fx.GraphModule,
    callbacks: Mapping[fx.Node, Callable[[torch.Tensor], None]],
    data: Iterable[Any],
    *,
    batches: int | None = None,
) -> None:
    """Run batches through ``gm`` in evaluation mode; each node's callback gets its value, in graph order.

    Raises:
        PassError: if the data is empty or misshapen.
    """
    observer = _Observer(gm, callbacks)
    with undisturbed(gm), torch.no_grad():
        for index, batch in enumerate(batches_of(gm, data, batches, "activations")):
            _run(partial(observer.run, enable_io_processing=False), placeholder_values(gm, batch), index)
