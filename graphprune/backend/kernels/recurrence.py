"""Recurrent layers as TensorIR: one loop over the steps, with the hidden state in a scratch buffer.

The gates' sums over the hidden state are matrix-vector products with packed panels of the weight, for up to four
sequences at once, which then share each load of the weight. Groups of sequences run in parallel; a single group shares
out the panels of a step where these are much work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import pack_panels
from graphprune.backend.kernels.activations import activate
from graphprune.backend.kernels.contract import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, registers, splat, store, workspace
from graphprune.backend.kernels.rows import along, row_lanes
from graphprune.backend.target import CompileTarget

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_SEQUENCES = 4  # that share a load of the weight
_ACCUMULATORS = 8  # vectors: enough to hide the latency of multiply-adds, and half of AVX2's registers
_PARALLEL_WORK = 1 << 18  # multiply-adds of a step from which on waking threads for it pays


@dataclass(frozen=True)
class _Plan:
    """Sizes of a kernel: steps, sequences, hidden width, rows of all gates, sequences at once, rows of a panel."""

    kind: str
    steps: int
    batch: int
    hidden: int
    rows: int
    group: int
    panel: int
    lanes: int
    batch_first: bool
    reverse: bool
    with_cell: bool

    def place(self, step: Any, sequence: Any) -> tuple[Any, Any]:
        """Return which row of the gates, and which of the outputs, belongs to a step of a sequence."""
        if self.batch_first:
            return sequence * self.steps + step, sequence * (self.steps + self.with_cell) + step
        return step * self.batch + sequence, step * self.batch + sequence


def recurrence_kernel(
    weight: np.ndarray,
    bias: np.ndarray | None,
    gates_shape: tuple[int, ...],
    target: CompileTarget,
    *,
    kind: str,
    batch_first: bool,
    reverse: bool,
    with_cell: bool,
) -> Kernel:
    """Return the kernel of ``graphprune::recurrence``; its buffers are gates, first states, constants, out."""
    rows, hidden = weight.shape
    steps, batch = (gates_shape[1], gates_shape[0]) if batch_first else gates_shape[:2]
    group = min(batch, _SEQUENCES)
    lanes = row_lanes(target, hidden)
    panel = lanes * max(1, min(_ACCUMULATORS // group, rows // lanes))
    plan = _Plan(kind, steps, batch, hidden, rows, group, panel, lanes, batch_first, reverse, with_cell)
    constants = (pack_panels(weight, panel), np.zeros(hidden, np.float32) if bias is None else bias)
    length = steps + with_cell
    out_shape = (batch, length, hidden) if batch_first else (length, batch, hidden)
    states = 2 if kind == "lstm" else 1
    shapes = [gates_shape, *[(batch, hidden)] * states, *(array.shape for array in constants), out_shape]
    with building(f"recurrence_{kind}") as emitter:
        declared = [T.arg(f"b{i}", T.buffer(shape, "float32", layout=None)) for i, shape in enumerate(shapes)]
        _emit(plan, *_named([flat_view(buffer) for buffer in declared], states))
    note = f"{steps} steps of {batch} sequences, hidden state of {hidden}"
    return Kernel(f"recurrence_{kind}", emitter.function, constants, out_shape, note=note)


def _named(views: list[tirx.Buffer], states: int) -> tuple[tirx.Buffer, list[tirx.Buffer], list[tirx.Buffer]]:
    return views[0], views[1 : 1 + states], views[1 + states :]


def _emit(plan: _Plan, gates: tirx.Buffer, states: list[tirx.Buffer], rest: list[tirx.Buffer]) -> None:
    weight, bias, out = rest
    groups = -(-plan.batch // plan.group)
    shares_panels = groups == 1 and plan.group * plan.rows * plan.hidden >= _PARALLEL_WORK
    with T.parallel(groups) if groups > 1 else T.serial(groups) as number:
        first = T.Bind(T.min(number * plan.group, plan.batch - plan.group))
        held = [workspace(plan.group * plan.hidden) for _ in states]
        sums = workspace(plan.group * plan.rows)
        for source, target in zip(states, held, strict=True):
            _copy(plan, target, 0, source, first * plan.hidden, plan.group * plan.hidden)
        with T.serial(plan.steps) as count:
            step = T.Bind(plan.steps - 1 - count) if plan.reverse else count
            _products(plan, sums, weight, held[0], parallel=shares_panels)
            for sequence in range(plan.group):
                source, target = plan.place(step, first + sequence)
                start = T.Bind(source * plan.rows)
                end = T.Bind(target * plan.hidden)
                body = partial(_update, plan, sequence, gates, start, sums, bias, held, out, end)
                along(plan.hidden, plan.lanes, body)
        if plan.with_cell:
            for sequence in range(plan.group):
                _, target = plan.place(plan.steps, first + sequence)
                _copy(plan, out, T.Bind(target * plan.hidden), held[-1], sequence * plan.hidden, plan.hidden)


def _copy(plan: _Plan, target: tirx.Buffer, to: Any, source: tirx.Buffer, start: Any, count: int) -> None:
    along(count, plan.lanes, lambda i, width: store(target, to + i, load(source, start + i, width), width))


def _products(plan: _Plan, sums: tirx.Buffer, weight: tirx.Buffer, hidden: tirx.Buffer, *, parallel: bool) -> None:
    """Emit the products of all rows of the weight with the hidden states of a group."""
    panels = -(-plan.rows // plan.panel)
    vectors = plan.panel // plan.lanes
    with T.parallel(panels) if parallel else T.serial(panels) as panel:
        row = T.Bind(T.min(panel * plan.panel, plan.rows - plan.panel))
        accumulators = registers(plan.group * vectors, plan.lanes)
        for index in range(plan.group * vectors):
            store(accumulators, index * plan.lanes, splat(0.0, plan.lanes), plan.lanes)
        with T.serial(plan.hidden) as k:
            start = T.Bind((panel * plan.hidden + k) * plan.panel)
            values = [T.Bind(hidden[sequence * plan.hidden + k]) for sequence in range(plan.group)]
            for vector in range(vectors):
                weights = T.Bind(load(weight, start + vector * plan.lanes, plan.lanes))
                for sequence, value in enumerate(values):
                    place = (sequence * vectors + vector) * plan.lanes
                    total = load(accumulators, place, plan.lanes) + splat(value, plan.lanes) * weights
                    store(accumulators, place, total, plan.lanes)
        for sequence in range(plan.group):
            for vector in range(vectors):
                total = load(accumulators, (sequence * vectors + vector) * plan.lanes, plan.lanes)
                store(sums, sequence * plan.rows + row + vector * plan.lanes, total, plan.lanes)


def _update(
    plan: _Plan, sequence: int, gates: tirx.Buffer, start: Any, sums: tirx.Buffer, bias: tirx.Buffer,
    held: list[tirx.Buffer], out: tirx.Buffer, end: Any, unit: Any, width: int,
) -> None:  # fmt: skip
    """Emit the new states of ``width`` hidden units of a sequence."""

    def gate(number: int) -> tuple[Any, Any]:
        offset = number * plan.hidden + unit
        return load(gates, start + offset, width), load(sums, sequence * plan.rows + offset, width)

    place = sequence * plan.hidden + unit
    if plan.kind == "lstm":
        enter, forget, new, leave = (T.Bind(x + product) for x, product in map(gate, range(4)))
        kept = T.Bind(activate("sigmoid", forget, width) * load(held[1], place, width))
        cell = T.Bind(kept + activate("sigmoid", enter, width) * activate("tanh", new, width))
        store(held[1], place, cell, width)
        hidden = activate("sigmoid", leave, width) * activate("tanh", cell, width)
    elif plan.kind == "gru":
        reset, update = (T.Bind(activate("sigmoid", x + product, width)) for x, product in map(gate, range(2)))
        x, product = gate(2)
        new = T.Bind(activate("tanh", x + reset * (product + load(bias, unit, width)), width))
        hidden = new + update * (load(held[0], place, width) - new)
    else:
        x, product = gate(0)
        hidden = activate(plan.kind.removeprefix("rnn_"), x + product, width)
    value = T.Bind(hidden)
    store(held[0], place, value, width)
    store(out, end + unit, value, width)
