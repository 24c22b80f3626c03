"""Recomputes shapes after a rewrite: runs a graph on tensors that have no values.

There are two ways. Tensors on the meta device are the quick one, four times as quick. Fake tensors cost more, but
know of dynamic sizes, of values that shapes depend on, and of the real device's choices of layouts. They have the last
word: whatever the quick way cannot run, they run again.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from graphprune.errors import VerificationError
from graphprune.graph import attribute_tensors

_META = torch.device("meta")


def check_runs(gm: fx.GraphModule, what: str, evidence: str) -> None:
    """Recompute ``meta["val"]`` of every node of a rewritten graph, which an error calls ``what``.

    ``evidence`` is what a report of the error should come with.

    Raises:
        VerificationError: if the graph does not run.
    """
    try:
        propagate_fake(gm)
    except Exception as error:  # whatever an op raises when its operands do not fit
        raise VerificationError(
            f"{what} does not run: {type(error).__name__}: {error}",
            hint=f"this is a bug in graphprune: please report {evidence}",
        ) from error


def propagate_fake(gm: fx.GraphModule) -> None:
    """Recompute ``meta["val"]`` of every node after a rewrite, from the placeholders' fake tensors.

    Raises whatever the first failing op raises: call it on graphs that are meant to run.
    """
    values = [node.meta.get("val") for node in gm.graph.nodes if node.op == "placeholder"]
    device = _only_device(gm, values)
    if device is None or not _runs_on_meta(gm, values, device):
        _run_on_fake(gm, values)


def is_symbolic(value: Any) -> bool:
    """Say whether ``value`` is a symbolic number or a tensor that has a symbolic size."""
    if isinstance(value, torch.Tensor):
        return any(not isinstance(size, int) for size in value.shape)
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


# ------------------------------------------------------------------------------------------------ the quick way


def _only_device(gm: fx.GraphModule, inputs: list[Any]) -> torch.device | None:
    """Return the device of all tensors of a graph without dynamic sizes; None if there is not just one."""
    tensors = [value for value in tree_leaves(inputs) if isinstance(value, torch.Tensor)]
    if not tensors or any(map(is_symbolic, tree_leaves(inputs))):
        return None
    devices = {tensor.device for tensor in [*tensors, *attribute_tensors(gm).values()]}
    for node in gm.graph.nodes:
        devices |= {a for a in tree_leaves((node.args, node.kwargs)) if isinstance(a, torch.device)}
    return devices.pop() if len(devices) == 1 else None


def _runs_on_meta(gm: fx.GraphModule, inputs: list[Any], device: torch.device) -> bool:
    """Try to recompute values with tensors on the meta device that stand for tensors on ``device``."""
    run = _MetaRun(gm, device, _fake_mode(inputs))
    try:
        run.run(*map(_without_values, inputs), enable_io_processing=False)
    except Exception:  # fake tensors tell whether the graph or the quick way is at fault
        return False
    for node, value in run.values.items():
        node.meta["val"] = value
    return True


class _MetaRun(fx.Interpreter):
    """Runs a graph on meta tensors that stand for tensors on ``device``.

    Attributes:
        values: node -> what its ``meta["val"]`` is to be.
    """

    def __init__(self, gm: fx.GraphModule, device: torch.device, mode: FakeTensorMode) -> None:
        super().__init__(gm)
        self.values: dict[fx.Node, Any] = {}
        self._device = device
        self._mode = mode

    def run_node(self, n: fx.Node) -> Any:
        result = _without_values(super().run_node(n))
        if n.op != "output":
            self.values[n] = tree_map_only(torch.Tensor, self._fake, result)
        return result

    def fetch_attr(self, target: str) -> Any:
        return _without_values(super().fetch_attr(target))

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(isinstance(value, torch.device) for value in (*args, *kwargs.values())):
            args, kwargs = tree_map_only(torch.device, lambda _: _META, (args, kwargs))
        if not _returns_several(target):
            return super().call_function(target, args, kwargs)
        if _is_recurrent(target) and len(args) == _RECURRENT_ARGUMENTS:
            return self._recurrent_layer(target, args)
        with self._mode:
            return super().call_function(target, *tree_map_only(torch.Tensor, self._fake, (args, kwargs)))

    def _recurrent_layer(self, target: Any, args: tuple[Any, ...]) -> Any:
        """Run a recurrent layer on a single step: without values all steps are alike, and each takes its time."""
        x, batch_first = args[0], args[-1]
        time = 1 if batch_first and x.dim() == 3 else 0
        one_step = (x.narrow(time, 0, 1), *args[1:])
        with self._mode:
            y, *states = super().call_function(target, *tree_map_only(torch.Tensor, self._fake, (one_step, {})))
        sizes = [x.shape[axis] if axis == time else size for axis, size in enumerate(y.shape)]
        return y.new_empty(sizes), *states

    def _fake(self, tensor: torch.Tensor) -> FakeTensor:
        return FakeTensor(self._mode, _without_values(tensor), self._device)


def _returns_several(target: Any) -> bool:
    """Say whether an op has further results (statistics, maps), whose sizes may differ from device to device."""
    return len(getattr(getattr(target, "_schema", None), "returns", ())) > 1


_RECURRENT_ARGUMENTS = 9  # of a layer over plain tensors: input, states, weights, and how they are used


def _is_recurrent(target: Any) -> bool:
    return getattr(target, "__name__", "") in ("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")


def _without_values(value: Any) -> Any:
    """Return ``value`` with meta tensors in place of its tensors."""

    def bare(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta and type(tensor) is torch.Tensor:
            return tensor
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)

    return bare(value) if isinstance(value, torch.Tensor) else tree_map_only(torch.Tensor, bare, value)


# ------------------------------------------------------------------------------------------------ the thorough way


def _fake_mode(inputs: list[Any]) -> FakeTensorMode:
    """Return the mode that the fake tensors among ``inputs`` belong to, a new one if there are none."""
    modes = [value.fake_mode for value in inputs if isinstance(value, FakeTensor)]
    return modes[0] if modes else FakeTensorMode(allow_non_fake_inputs=True)


class _FakeRun(fx.Interpreter):
    """Runs a graph on fake tensors and notes every value in its node's ``meta``."""

    def __init__(self, gm: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(gm)
        self._mode = mode

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except DataDependentOutputException:  # the op's Python form may need no values, as that of istft
            with enable_python_dispatcher():
                result = super().run_node(n)
        if n.op != "output":
            n.meta["val"] = result
        return result

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return self._mode.from_tensor(value, static_shapes=True) if isinstance(value, torch.Tensor) else value


def _run_on_fake(gm: fx.GraphModule, inputs: list[Any]) -> None:
    mode = _fake_mode(inputs)
    # Without the Python dispatcher, some composite ops in C++ turn symbolic sizes into the example's numbers; with it,
    # every op takes twice as long.
    dispatcher = enable_python_dispatcher() if any(map(is_symbolic, tree_leaves(inputs))) else nullcontext()
    with mode, torch.no_grad(), dispatcher:
        _FakeRun(gm, mode).run(*inputs, enable_io_processing=False)
