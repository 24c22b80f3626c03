"""Training a traced graph: modes, and zeros that stay zero while an optimiser runs.

A traced graph trains with an ordinary loop::

    gm.train()                                  # or train_mode(gm, freeze_batch_norm=True)
    with hold_masks(gm, optimizer):
        for x, y in loader:
            loss(gm(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    gm.eval()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from graphprune.errors import MaskError
from graphprune.graph import get_attribute, graph_info
from graphprune.tracing.traced_module import set_training_flags

_NORMS = ("batch_norm", "instance_norm")


def train_mode(gm: fx.GraphModule, *, freeze_batch_norm: bool = False) -> fx.GraphModule:
    """Switch ``gm`` to training in place and return it; works on any ``GraphModule`` of ATen ops.

    Drop-out becomes active, and batch norm normalises by the batch and updates its running statistics in place, or
    keeps using them if ``freeze_batch_norm``. Drop-out that the model's code skips outside training (``if
    self.training: ...``), such as that inside attention or stochastic depth, was not traced and does not come back.
    """
    nn.Module.train(gm)  # not gm.train(), which raises on graphs straight from torch.export
    set_training_flags(gm, True, keep_evaluating=_NORMS if freeze_batch_norm else ())
    return gm


def eval_mode(gm: fx.GraphModule) -> fx.GraphModule:
    """Switch ``gm`` to evaluation in place and return it: drop-out off, batch norm by its running statistics."""
    nn.Module.train(gm, False)
    set_training_flags(gm, False)
    return gm


def hold_masks(gm: fx.GraphModule, *optimizers: torch.optim.Optimizer) -> MaskKeeper:
    """Keep the pruned weights of ``graph_info(gm).weight_masks`` at exactly zero until finalised; see MaskKeeper."""
    return MaskKeeper(gm, *optimizers)


class MaskKeeper:
    """Keeps pruned weights at exactly zero while a graph trains.

    Gradients of pruned weights are zeroed as they arrive, and the zeros are written again after every step of the given
    optimisers, before every forward of the graph, and before a state dict is taken. So neither momentum from before the
    pruning nor an optimiser that is not known here revives a weight. Usable as a context manager, which finalises.

    Attributes:
        masks: the keep-masks in force, by parameter path.
    """

    def __init__(self, gm: fx.GraphModule, *optimizers: torch.optim.Optimizer) -> None:
        self.masks: dict[str, torch.Tensor] = {}
        self._gm = gm
        self._optimizers = optimizers
        self._hooks: dict[str, RemovableHandle] = {}
        self._handles: list[Any] = [
            gm.register_forward_pre_hook(lambda module, args: self.write_zeros()),
            gm.register_state_dict_pre_hook(lambda module, prefix, keep_vars: self.write_zeros()),
            *(optimizer.register_step_post_hook(lambda *_: self.write_zeros()) for optimizer in optimizers),
        ]
        self.update(graph_info(gm).weight_masks)

    def update(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Put further masks in force, on top of those held, write the zeros, and record them in the graph's info.

        Optimiser state of newly pruned weights (momentum, averages of gradients) becomes zero as well.

        Raises:
            MaskError: if a mask does not have its parameter's shape, or is not boolean.
        """
        info = graph_info(self._gm)
        for path, mask in masks.items():
            parameter = get_attribute(self._gm, path)
            _require_fitting(path, mask, parameter)
            mask = mask.to(parameter.device)
            self.masks[path] = mask & self.masks[path].to(mask.device) if path in self.masks else mask
            info.weight_masks[path] = self.masks[path]
            if path not in self._hooks and parameter.requires_grad:
                self._hooks[path] = parameter.register_hook(lambda gradient, path=path: self._masked(path, gradient))
            self._clear_optimizer_state(path, parameter)
        self.write_zeros()

    @torch.no_grad()
    def write_zeros(self) -> None:
        """Set every pruned weight to zero now."""
        for path in self.masks:
            parameter = get_attribute(self._gm, path)
            # Through .data: between two forwards that share a backward the values do not change, so autograd, which
            # would otherwise refuse the weights it saved, need not know.
            parameter.data.masked_fill_(~self._mask(path, parameter.device), 0)

    def finalize(self) -> fx.GraphModule:
        """Write the zeros a last time, remove all hooks, and return the graph; a second call does nothing more."""
        self.write_zeros()
        for handle in [*self._handles, *self._hooks.values()]:
            handle.remove()
        self._handles.clear()
        self._hooks.clear()
        return self._gm

    def __enter__(self) -> MaskKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.finalize()

    def _mask(self, path: str, device: torch.device) -> torch.Tensor:
        """Return the mask on ``device``, moving it for good if the graph was moved."""
        if self.masks[path].device != device:
            self.masks[path] = self.masks[path].to(device)
        return self.masks[path]

    def _masked(self, path: str, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.masked_fill(~self._mask(path, gradient.device), 0)

    @torch.no_grad()
    def _clear_optimizer_state(self, path: str, parameter: nn.Parameter) -> None:
        for optimizer in self._optimizers:
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(~self._mask(path, value.device), 0)


def _require_fitting(path: str, mask: torch.Tensor, parameter: torch.Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != parameter.shape:
        raise MaskError(
            f"the mask of {path} is {mask.dtype} {list(mask.shape)}, the parameter has shape {list(parameter.shape)}",
            hint="a weight mask is boolean, True where the weight is kept, and of the weight's shape",
        )
