"""Custom ops that stand for a whole layer: what the backend lowers to one kernel.

The fused ones compute ``activation(op(x, weight, bias) + residual)``. Their ``format`` says how the weight will be
stored when lowered: ``dense`` or ``csr``. In the graph the weight stays an ordinary dense tensor, so that a marked
graph runs, exports and retraces like any other. Importing this module registers the ops.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from graphprune.errors import PassError

FORMATS = ("dense", "csr")

_ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
ACTIVATIONS = tuple(_ACTIVATIONS)


def _epilogue(y: torch.Tensor, residual: torch.Tensor | None, activation: str, format: str) -> torch.Tensor:
    if activation not in _ACTIVATIONS:
        raise PassError(f"unknown activation {activation!r}", hint=f"one of {', '.join(ACTIVATIONS)}")
    if format not in FORMATS:
        raise PassError(f"unknown weight format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if residual is not None:
        y = y + residual
    return _ACTIVATIONS[activation](y)


@torch.library.custom_op(
    "graphprune::fused_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation, str format) -> Tensor",
)
def fused_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    format: str,
) -> torch.Tensor:
    """Return ``activation(x @ weight.T + bias + residual)``; x is [..., in], weight [out, in], residual [..., out]."""
    return _epilogue(F.linear(x, weight, bias), residual, activation, format)


@torch.library.custom_op(
    "graphprune::fused_conv2d",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, SymInt[2] stride, SymInt[2] padding, "
    "SymInt[2] dilation, int groups, str activation, str format) -> Tensor",
)
def fused_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    format: str,
) -> torch.Tensor:
    """Return ``activation(conv2d(x, weight) + bias + residual)``; x is NCHW, weight [out, in / groups, kh, kw]."""
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _epilogue(y, residual, activation, format)


fused_linear.register_fake(fused_linear._init_fn)
fused_conv2d.register_fake(fused_conv2d._init_fn)

FUSED_LINEAR = torch.ops.graphprune.fused_linear.default
FUSED_CONV2D = torch.ops.graphprune.fused_conv2d.default


@torch.library.custom_op("graphprune::select_channels", mutates_args=(), schema="(Tensor x, int dim) -> Tensor")
def select_channels(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Return a copy of ``x``. It marks an edge whose reader may take a subset of axis ``dim`` of its own."""
    return x.clone()


select_channels.register_fake(select_channels._init_fn)

SELECT_CHANNELS = torch.ops.graphprune.select_channels.default


@torch.library.custom_op(
    "graphprune::recurrence",
    mutates_args=(),
    schema="(Tensor gates, Tensor weight, Tensor? bias, Tensor[] states, str kind, bool batch_first, bool reverse, "
    "bool with_cell) -> Tensor",
)
def recurrence(
    gates: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    states: list[torch.Tensor],
    kind: str,
    batch_first: bool,
    reverse: bool,
    with_cell: bool,
) -> torch.Tensor:
    """Return the hidden states of all steps of a recurrent layer, [steps, batch, hidden] or batch first.

    ``gates`` [steps, batch, gates * hidden] is what the input contributes to each gate, ``weight`` [gates * hidden,
    hidden] multiplies the hidden state of the step before, ``bias`` [hidden] is added to that product in a GRU's last
    gate. ``kind`` is ``lstm``, ``gru``, ``rnn_tanh`` or ``rnn_relu``; ``states`` are the first hidden (and cell) state.
    With ``with_cell`` there is one more step, which holds the last cell state.
    """
    time = 1 if batch_first else 0
    hidden, cell = states[0], states[-1]
    steps = gates.unbind(time)
    outputs = []
    for step in reversed(steps) if reverse else steps:
        product = F.linear(hidden, weight)
        hidden, cell = _CELLS[kind](step, product, bias, hidden, cell)
        outputs.append(hidden)
    if reverse:
        outputs.reverse()
    return torch.stack([*outputs, cell] if with_cell else outputs, time)


def _lstm_cell(
    step: torch.Tensor, product: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor, cell: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    enter, forget, new, leave = (step + product).chunk(4, -1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell.tanh(), cell


def _gru_cell(
    step: torch.Tensor, product: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor, cell: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    (reset, update, new), (p, q, r) = step.chunk(3, -1), product.chunk(3, -1)
    update = (update + q).sigmoid()
    new = (new + (reset + p).sigmoid() * (r if bias is None else r + bias)).tanh()
    return (1 - update) * new + update * hidden, cell


_CELLS = {
    "lstm": _lstm_cell,
    "gru": _gru_cell,
    "rnn_tanh": lambda step, product, bias, hidden, cell: ((step + product).tanh(), cell),
    "rnn_relu": lambda step, product, bias, hidden, cell: ((step + product).relu(), cell),
}


@recurrence.register_fake
def _(
    gates: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    states: list[torch.Tensor],
    kind: str,
    batch_first: bool,
    reverse: bool,
    with_cell: bool,
) -> torch.Tensor:
    sizes = list(gates.shape)
    sizes[1 if batch_first else 0] += with_cell
    return gates.new_empty([*sizes[:-1], weight.shape[1]])


RECURRENCE = torch.ops.graphprune.recurrence.default
