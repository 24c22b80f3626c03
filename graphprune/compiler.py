"""Compiles a model, or a pruned graph, to a callable that runs in TVM."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from graphprune.api import as_passes
from graphprune.canonicalize.alias_groups import visible_writes
from graphprune.errors import BackendError
from graphprune.graph import graph_info
from graphprune.half_precision import computed_in_float32
from graphprune.pass_base import Pass
from graphprune.passes.fold_batch_norm import FoldBatchNorm
from graphprune.passes.fold_constants import FoldConstants
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.passes.mark_sparse import MarkSparse
from graphprune.passes.sequential import Sequential
from graphprune.plans import Plan
from graphprune.report import CompileReport
from graphprune.signature import Signature
from graphprune.tracing.trace import trace

if TYPE_CHECKING:
    from tvm.runtime import Executable

    from graphprune.backend.target import CompileTarget
    from graphprune.profiling import Profile
    from graphprune.runtime import Executor

DEFAULT_TARGET = "llvm -mcpu=native"


def compile(
    model: nn.Module | fx.GraphModule | ExportedProgram,
    prune_pass: Pass | Sequence[Pass] | Plan | None = None,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    target: str | Mapping[str, Any] = DEFAULT_TARGET,
    dynamic_shapes: Any = None,
    min_sparsity: float | None = None,
    winograd: bool = True,
    tune: bool = False,
    tune_seconds: float | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> CompiledModel:
    """Trace ``model``, run passes on it, and compile the result.

    On a CPU a model in float16 or bfloat16 takes and returns these dtypes, and computes in float32 in between.

    Args:
        model: a module, a traced or pruned graph, or an ``ExportedProgram``.
        prune_pass: a pass or a list of passes to run first, or a plan made for this model; None compiles it as it is.
        example_inputs, example_kwargs: inputs of the shapes and dtypes to compile for; not needed for a traced graph.
        target: TVM target, as a string or dict.
        dynamic_shapes: as in ``torch.export``; the backends need static shapes so far and say so.
        min_sparsity: fraction of zeros from which on a layer gets a sparse kernel; None takes the measured break-even.
        winograd: compute dense convolutions by Winograd's algorithm where that is faster. Each output is then a
            different sum of the same products: the difference to float64 is of the same size (on average; up to three
            times at its worst), but an infinity or NaN in the input reaches all outputs of its tile of 4x4.
        tune: time several ways to compute each layer on this machine (dense or sparse, tile shapes) and take the
            fastest. What is found is kept in a cache, layer by layer, and used by later calls with ``tune`` or
            ``cache``; Ctrl-C raises KeyboardInterrupt as ever, and the next call goes on where it stopped. With
            ``min_sparsity`` the formats stay as that says.
        tune_seconds: stop measuring after this long and leave the remaining layers to the cost models.
        cache: folder of the cache; None is ``$GRAPHPRUNE_CACHE`` or the user's cache folder. With a folder and without
            ``tune``, what the folder knows is used and nothing is measured.

    Returns:
        A callable that takes what the model takes and returns what it returns.

    Raises:
        TraceError: if the model cannot be traced.
        PassError: if a pass fails.
        UnsupportedOpError: if an op has no lowering to TVM.
        BackendError: if the target is unknown or unavailable, cannot be tuned for here, the model writes to its
            buffers, or compilation fails.
    """
    from graphprune.backend import get_backend
    from graphprune.shrink import shrink

    if tune_seconds is not None and not tune:
        raise BackendError("tune_seconds limits a search that nobody asked for", hint="pass tune=True too")
    backend = get_backend(target)
    parsed = replace(backend.target(target), winograd=winograd)
    tuner = None
    if tune or cache is not None:
        from graphprune.backend.tuning import Tuner

        tuner = Tuner(
            backend, parsed, search=tune, seconds=tune_seconds, cache=cache, fixed_format=min_sparsity is not None
        )
    start = time.perf_counter()
    gm = trace(model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes)
    _refuse_state(gm)
    preparation = (FoldConstants(), FoldBatchNorm(), FuseEpilogues(), MarkSparse(min_sparsity, parsed.kind, winograd))
    gm = shrink(gm, prune_pass) if isinstance(prune_pass, Plan) else Sequential(*as_passes(prune_pass))(gm)
    if parsed.kind == "llvm":
        gm = computed_in_float32(gm)
    gm = Sequential(*preparation)(gm)
    prepared = time.perf_counter()

    from graphprune.backend.build import build
    from graphprune.backend.lower import lower

    lowered = lower(gm, backend, parsed, tuner)
    lowered_at = time.perf_counter()
    executable, unscheduled, calls = build(lowered, backend, parsed)
    seconds = {
        "trace and passes": prepared - start,
        "lower and tune" if tune else "lower": lowered_at - prepared,
        "build": time.perf_counter() - lowered_at,
    }
    history = tuple(graph_info(gm).history)
    report = CompileReport(str(parsed), tuple(lowered.layers), history, unscheduled, seconds, calls)
    return CompiledModel(executable, lowered.signature, lowered.build_result, parsed, backend.device, report)


def _refuse_state(gm: fx.GraphModule) -> None:
    """Refuse a graph that writes to its buffers: what it writes would be lost, and the next call wrong."""
    for write, root in visible_writes(gm.graph):
        if root.op == "get_attr":
            raise BackendError(
                f"the model writes to its buffer {root.target}, and a compiled model keeps nothing between calls",
                node=write,
                hint="pass the value in and return the new one",
            )


class CompiledModel:
    """A compiled model. Call it like the original, with torch tensors or numpy arrays; results are torch tensors.

    Tensors cross by DLPack without copies where they are contiguous and aligned to 64 bytes, as torch's own are.

    Attributes:
        signature: what it takes and returns.
        target: what it was compiled for.
    """

    def __init__(
        self,
        executable: Executable,
        signature: Signature,
        build_result: Callable[[Sequence[Any]], Any],
        target: CompileTarget,
        device: Callable[[], Any],
        report: CompileReport,
    ) -> None:
        """Wrap an executable; use :func:`compile`."""
        self.signature = signature
        self.target = target
        self._executable = executable
        self._build_result = build_result
        self._device = device
        self._report = report
        self._executor: Executor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises:
            BackendError: if an argument is missing, or has another shape or dtype than the model was compiled for, or
                the target's device is not on this machine.
        """
        inputs = [_prepare(value) for value in self.signature.bind(args, kwargs)]
        outputs = self._get_executor().run(inputs)
        return self._build_result([torch.from_dlpack(output) for output in outputs])

    def profile(self, *args: Any, repeats: int = 20, **kwargs: Any) -> Profile:
        """Return the time of each kernel call on these inputs, in a table that ``print`` shows.

        The model runs ``repeats`` times as it is and as often with a look at the clock around each kernel, which adds
        a few microseconds to a call.

        Raises:
            BackendError: as a call does, or if ``repeats`` is not positive.
        """
        from graphprune.profiling import profile

        inputs = [_prepare(value) for value in self.signature.bind(args, kwargs)]
        return profile(self._get_executor(), inputs, self._report.calls, repeats)

    def report(self) -> CompileReport:
        """Return what the compilation did, layer by layer."""
        return self._report

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write an artifact for ``graphprune.runtime.load`` and return its path.

        It is a zip file if ``path`` ends in ``.gp`` or ``.zip``, else a folder.

        Raises:
            ArtifactError: if it cannot be written.
        """
        from graphprune.backend.artifact import write_artifact

        return write_artifact(path, self._executable, self.signature, self.target, {"report": self._report.as_dict()})

    def _get_executor(self) -> Executor:
        if self._executor is None:
            from graphprune.runtime import Executor

            self._executor = Executor(self._executable, self._device(), self.signature)
        return self._executor


def _prepare(value: Any) -> Any:
    """Return ``value`` as something that crosses by DLPack: detached, contiguous, aligned."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    if value.layout != torch.strided:
        raise BackendError(f"sparse tensors ({value.layout}) cannot be passed", hint="call .to_dense() first")
    value = value.contiguous()
    return value if value.data_ptr() % 64 == 0 else value.clone()
