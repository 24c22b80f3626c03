"""``advise``: measures a model's layers on this machine and adds up what pruning would buy, before any training."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import fx, nn
from torch.export import ExportedProgram

from graphprune.advice import Advice, LayerCurve, Prediction, SparsePoint
from graphprune.compiler import DEFAULT_TARGET, compile
from graphprune.criteria import Random
from graphprune.errors import BackendError, GraphPruneError
from graphprune.graph import attribute_tensors, bind_arguments, graph_info
from graphprune.layer_shapes import LayerShape
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.passes.fold_batch_norm import FoldBatchNorm
from graphprune.passes.fold_constants import FoldConstants
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.prune_channels import PruneChannels
from graphprune.passes.sequential import Sequential
from graphprune.predicting import Baseline, ShrunkLayer, dense_bytes, predict_removal, predict_zeros
from graphprune.progress_bar import progress_bar
from graphprune.tracing.trace import trace

if TYPE_CHECKING:
    from graphprune.backend.layer_timing import LayerTimes
    from graphprune.profiling import Profile

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
RATIOS = (0.25, 0.5, 0.75)
SECONDS = 60.0
_SHARE_OF_ZEROS = 0.65  # of the time; the rest is for removed channels
_PROFILE_REPEATS = 15


def advise(
    model: nn.Module | fx.GraphModule | ExportedProgram,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    target: str | Mapping[str, Any] = DEFAULT_TARGET,
    sparsities: Sequence[float] = SPARSITIES,
    ratios: Sequence[float] = RATIOS,
    seconds: float = SECONDS,
) -> Advice:
    """Measure what zeros in weights and removed channels would buy for ``model`` on this machine.

    The dense model is compiled and profiled; then the dense and the sparse kernel of each distinct layer shape run in
    turns on random weights, those shapes first that take longest; then the shapes that ``PruneChannels`` leaves. Ctrl-C
    after the profile returns what was measured so far.

    Args:
        model, example_inputs, example_kwargs: as in :func:`graphprune.compile`.
        target: a processor that this machine has; it is measured with as many threads as
            ``graphprune.runtime.set_num_threads`` said.
        sparsities: fractions of zeros to measure, between 0 and 1.
        ratios: fractions of channels to remove.
        seconds: about how long to measure after the profile; what is left out is extrapolated and marked.

    Raises:
        TraceError: if the model cannot be traced.
        BackendError: if the target is not a processor, or an option makes no sense.
    """
    from graphprune.backend import get_backend

    _check(sparsities, ratios, seconds)
    backend = get_backend(target)
    if backend.kind != "llvm":
        raise BackendError(f"advise measures processors, not {backend.kind}", hint='target="llvm -mcpu=native"')
    gm = trace(model, example_inputs, example_kwargs)
    prepared = _prepare(gm)
    compiled = compile(prepared, target=target, min_sparsity=1.0)
    info = graph_info(gm)
    with torch.inference_mode():
        profile = compiled.profile(*info.example_args, repeats=_PROFILE_REPEATS, **info.example_kwargs)
    from graphprune.backend.layer_timing import time_layer
    from graphprune.runtime import thread_count

    parsed, threads = compiled.target, thread_count()

    def measure(shape: LayerShape, amounts: Sequence[float]) -> LayerTimes:
        return time_layer(shape, amounts, backend, parsed, threads)

    study = _Study(gm, prepared, profile, tuple(sorted(sparsities)), tuple(sorted(ratios)), measure)
    study.run(seconds)
    return study.advice(str(parsed), threads)


def layer_shapes(gm: fx.GraphModule) -> list[tuple[str, LayerShape]]:
    """Return (weight's path, shape) of every fused layer of a prepared graph, in order."""
    found = []
    for node in gm.graph.nodes:
        if node.target not in (FUSED_LINEAR, FUSED_CONV2D):
            continue
        bound = bind_arguments(node)
        weight, x = (tuple(int(size) for size in bound[name].meta["val"].shape) for name in ("weight", "x"))
        epilogue = (bound["bias"] is not None, bound["residual"] is not None, bound["activation"])
        shape = LayerShape("linear", weight, x, *epilogue)
        if node.target is FUSED_CONV2D:
            pairs = {name: (int(bound[name][0]), int(bound[name][-1])) for name in ("stride", "padding", "dilation")}
            shape = replace(shape, kind="conv2d", groups=bound["groups"], **pairs)
        found.append((str(bound["weight"].target), shape))
    return found


class _Study:
    """One run of ``advise``: what was measured so far, and what follows from it."""

    def __init__(
        self,
        gm: fx.GraphModule,
        prepared: fx.GraphModule,
        profile: Profile,
        sparsities: tuple[float, ...],
        ratios: tuple[float, ...],
        measure: Any,
    ) -> None:
        self._gm, self._prepared, self._profile = gm, prepared, profile
        self._sparsities, self._ratios, self._measure = sparsities, ratios, measure
        self._curves = _unmeasured(prepared, profile)
        self._removals: dict[float, _Removal] = {}
        self._notes: list[str] = []
        self._stopped = ""

    def run(self, seconds: float) -> None:
        """Measure until done, out of time, or interrupted."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("Ctrl-C ends early"))
        try:
            with progress_bar(*columns) as progress:
                self._measure_zeros(progress, time.monotonic() + _SHARE_OF_ZEROS * seconds)
                self._measure_removals(progress, time.monotonic() + (1 - _SHARE_OF_ZEROS) * seconds)
        except KeyboardInterrupt:
            self._stopped = "interrupted"

    def advice(self, target: str, threads: int) -> Advice:
        """Return what follows from what was measured."""
        curves = self._curves
        rest = self._profile.total - sum(curve.seconds for curve in curves)
        outside = _bytes_outside(self._prepared, curves)
        baseline = Baseline(self._profile.total, rest, self._profile.everything_else, outside)
        any_measured = any(curve.dense for curve in curves)
        removals: list[Prediction] = [
            predict_removal(baseline, curves, removal.layers, ratio, removal.rest_ratio)
            for ratio, removal in sorted(self._removals.items())
        ]
        return Advice(
            target,
            threads,
            baseline.seconds,
            rest,
            dense_bytes(baseline, curves),
            tuple(curves),
            tuple(predict_zeros(baseline, curves, s) for s in self._sparsities) if any_measured else (),
            tuple(removals),
            tuple(self._notes),
            self._stopped,
        )

    def _measure_zeros(self, progress: Progress, deadline: float) -> None:
        task = progress.add_task("zeros", total=len(self._curves))
        for position, curve in enumerate(self._curves):
            if time.monotonic() > deadline and position:
                self._stopped = "time limit"
                return
            progress.update(task, description=f"zeros: {curve.shape}")
            times = self._measure(curve.shape, (0.0, *self._sparsities))
            self._curves[position] = _measured(curve, times)
            progress.advance(task)

    def _measure_removals(self, progress: Progress, deadline: float) -> None:
        for ratio in self._ratios:
            if time.monotonic() > deadline:
                self._stopped = "time limit"
                return
            progress.add_task(f"shrinking by {ratio:.0%}", total=None)
            try:
                shrunk = PruneChannels(ratio=ratio, criterion=Random())(self._gm)
            except GraphPruneError as error:
                self._notes.append(f"no prediction for removing {ratio:.0%} of the channels: {error.message}")
                continue
            if not graph_info(shrunk).history[-1].summary["dimensions"]:
                self._notes.append("no channels can be removed")
                return
            self._removals[ratio] = removal = _removal(self._prepared, _prepare(shrunk))
            self._measure_removal(removal, progress, ratio, deadline)

    def _measure_removal(self, removal: _Removal, progress: Progress, ratio: float, deadline: float) -> None:
        shapes = list(dict.fromkeys(layer.shape for layer in removal.layers))
        shapes.sort(key=lambda shape: -shape.macs)
        task = progress.add_task(f"{ratio:.0%} of channels removed", total=len(shapes))
        for shape in shapes:
            if time.monotonic() > deadline:
                self._stopped = "time limit"
                return
            times = self._measure(shape, (0.0,))
            if 0.0 in times.seconds:
                removal.enter(shape, times.seconds[0.0], times.weight_bytes[0.0])
            progress.advance(task)


@dataclass
class _Removal:
    """The layers after channels were removed, and how much smaller the results of all other ops became."""

    layers: list[ShrunkLayer]
    rest_ratio: float

    def enter(self, shape: LayerShape, seconds: float, weight_bytes: int) -> None:
        """Note a measurement for all layers of a shape."""
        entry = (seconds, weight_bytes)
        self.layers = [replace(layer, dense=entry) if layer.shape == shape else layer for layer in self.layers]


def _prepare(gm: fx.GraphModule) -> fx.GraphModule:
    """Return the graph as ``compile`` would lower it, but for the choice of formats."""
    return Sequential(FoldConstants(), FoldBatchNorm(), FuseEpilogues())(gm)


def _unmeasured(prepared: fx.GraphModule, profile: Profile) -> list[LayerCurve]:
    """Return a curve without points for each distinct shape, the slowest first; layers TVM computes are left out."""
    times: dict[str, deque[float]] = defaultdict(deque)
    for row in profile.rows:
        times[row.call.layer].append(row.seconds)
    layers: dict[LayerShape, list[str]] = defaultdict(list)
    seconds: dict[LayerShape, float] = defaultdict(float)
    for path, shape in layer_shapes(prepared):
        if times[path]:
            layers[shape].append(path)
            seconds[shape] += times[path].popleft()
    curves = [
        LayerCurve(shape, tuple(paths), seconds[shape], dense_bytes=4 * shape.weight_count)
        for shape, paths in layers.items()
    ]
    return sorted(curves, key=lambda curve: -curve.seconds)


def _measured(curve: LayerCurve, times: LayerTimes) -> LayerCurve:
    if 0.0 not in times.seconds:
        return replace(curve, reason=f"not measured: {times.problems[0.0]}")
    points = [SparsePoint(s, times.seconds[s], times.weight_bytes[s]) for s in sorted(times.seconds) if s]
    reason = next(iter(times.problems.values()), "") if not points else ""
    dense, size = times.seconds[0.0], times.weight_bytes[0.0]
    return replace(curve, dense=dense, dense_bytes=size, sparse=tuple(points), reason=reason)


def _removal(before: fx.GraphModule, after: fx.GraphModule) -> _Removal:
    elements = _other_elements(before)
    ratio = _other_elements(after) / elements if elements else 1.0
    return _Removal([ShrunkLayer(path, shape, None) for path, shape in layer_shapes(after)], ratio)


def _other_elements(gm: fx.GraphModule) -> int:
    """Return the number of elements that all ops but fused layers produce: what their time goes with."""
    values = [
        node.meta.get("val")
        for node in gm.graph.nodes
        if node.op == "call_function" and node.target not in (FUSED_LINEAR, FUSED_CONV2D)
    ]
    return sum(math.prod(int(size) for size in value.shape) for value in values if isinstance(value, torch.Tensor))


def _bytes_outside(gm: fx.GraphModule, curves: Sequence[LayerCurve]) -> int:
    """Return the bytes of parameters and buffers that are not weights of the curves' layers."""
    layers = {path for curve in curves for path in curve.layers}
    tensors = attribute_tensors(gm)
    return sum(tensor.numel() * tensor.element_size() for path, tensor in tensors.items() if path not in layers)


def _check(sparsities: Sequence[float], ratios: Sequence[float], seconds: float) -> None:
    if not sparsities or not all(0 < amount < 1 for amount in (*sparsities, *ratios)):
        raise BackendError(f"sparsities {list(sparsities)} and ratios {list(ratios)} must lie between 0 and 1")
    if seconds <= 0:
        raise BackendError(f"seconds must be positive, got {seconds}")
