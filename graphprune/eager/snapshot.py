"""Remembers everything a module tree holds, so that a change that fails can be taken back exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_CONTAINERS = (dict, list, set)


class Snapshot:
    """The state of a model: which objects every module holds under which name, and the values of its buffers.

    Restoring puts the very same parameters, buffers, hooks and attributes back; only buffers that were written in place
    meanwhile get their old values copied in.

    Args:
        model: the root of the module tree.
        others: further objects with a ``__dict__`` (configurations) to remember.
    """

    def __init__(self, model: nn.Module, others: Iterable[object] = ()) -> None:
        self._states: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._buffers = [(b, b._version, b.detach().clone()) for b in model.buffers() if not b.is_meta]
        for owner in (*model.modules(), *others):
            state = vars(owner)
            self._states.append((state, dict(state)))
            self._containers += [(v, v.copy()) for v in state.values() if isinstance(v, _CONTAINERS)]

    def restore(self) -> None:
        """Bring the model back to what it was."""
        for state, saved in self._states:
            state.clear()
            state.update(saved)
        for container, saved in self._containers:
            container.clear()
            container.extend(saved) if isinstance(container, list) else container.update(saved)
        self.restore_buffers()

    @torch.no_grad()
    def restore_buffers(self) -> None:
        """Copy old values into buffers that were written in place since."""
        for buffer, version, value in self._buffers:
            if buffer._version != version:
                buffer.copy_(value)
