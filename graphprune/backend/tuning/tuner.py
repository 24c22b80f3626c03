"""Chooses how to compute each layer: from the cache, else by measuring candidates, while the time lasts."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tvm.target import codegen

from graphprune import __version__
from graphprune.backend import kernels
from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.tuning.cache import Decision, TuningCache
from graphprune.backend.tuning.candidates import Candidate, candidates
from graphprune.backend.tuning.timing import compiled_calls, fastest_times
from graphprune.errors import BackendError
from graphprune.manifest import file_digest
from graphprune.progress_bar import progress_bar
from graphprune.runtime import thread_count

if TYPE_CHECKING:
    from graphprune.backend import Backend
    from graphprune.backend.kernels import Kernel
    from graphprune.backend.target import CompileTarget

_GAIN = 0.97  # of the default's time: a candidate that is not at least this much faster is noise

Measure = Callable[[Mapping[str, Callable[[], object]]], dict[str, float]]


class Tuner:
    """Measures layers and remembers the outcome; each layer's decision is on disk before the next one is measured."""

    def __init__(
        self,
        backend: Backend,
        target: CompileTarget,
        *,
        search: bool,
        seconds: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        fixed_format: bool = False,
        measure: Measure = fastest_times,
    ) -> None:
        """Open the cache for ``target``.

        Args:
            search: measure what is not in the cache; False only looks things up.
            seconds: stop measuring after this long; None for no limit.
            cache: folder of the cache; None for the user's.
            fixed_format: keep each layer's format, dense or sparse, as it is marked.
            measure: returns the time in seconds of each of some competing calls.

        Raises:
            BackendError: if ``search`` is set for a target that is not this machine's CPU.
        """
        if search:
            _require_this_machine(target)
        self.backend, self.target = backend, target
        self._search, self._fixed_format, self._measure = search, fixed_format, measure
        self._end = None if seconds is None else time.monotonic() + seconds
        self._cache = TuningCache(cache, _context(target))
        self._progress = _progress()
        self._task = self._progress.add_task("tuning", total=None, layer="")

    def begin(self, layers: int) -> None:
        """Say how many layers will come, for the progress bar."""
        self._progress.update(self._task, total=layers)
        if self._search:
            self._progress.start()

    def end(self) -> None:
        """Remove the progress bar."""
        self._progress.stop()

    def decide(self, name: str, layer: FusedLayer, *, sparse: bool) -> tuple[Decision, str] | None:
        """Return the decision for a layer and whether it was "cached" or "measured"; None leaves it to cost models.

        ``name`` is shown while it is measured; ``sparse`` is the format that the layer was marked with.
        """
        self._progress.update(self._task, layer=name)
        key = layer_key(layer, sparse if self._fixed_format else None)
        found, origin = self._cache.get(key), "cached"
        if found is None and self._search and (self._end is None or time.monotonic() < self._end):
            found, origin = self._decide(layer, sparse), "measured"
            if found is not None:
                self._cache.put(key, found)
        self._progress.advance(self._task)
        return None if found is None else (found, origin)

    def _decide(self, layer: FusedLayer, sparse: bool) -> Decision | None:
        """Measure; None if there is no more than one way to compute the layer."""
        ways = self._distinct(layer, candidates(layer, sparse=sparse, fixed_format=self._fixed_format))
        if len(ways) < 2:
            return None
        kernels = {str(i): kernel for i, kernel in enumerate(ways.values())}
        calls = compiled_calls(kernels, layer.x_shape, layer.epilogue.residual, self.target)
        times = list(self._measure(calls).values())
        best = min(range(len(times)), key=times.__getitem__)
        if times[best] > _GAIN * times[0]:
            best = 0
        return Decision(list(ways)[best], times[best], times[0])

    def _distinct(self, layer: FusedLayer, ways: list[Candidate]) -> dict[Candidate, Kernel]:
        """Return the kernels of those candidates that have one and that differ from the ones before."""
        kernels: dict[Candidate, Kernel] = {}
        seen: set[tuple[Any, ...]] = set()
        for way in ways:
            try:
                kernel = layer.kernel(self.backend, self.target, sparse=way.sparse, choice=way.choice)
            except BackendError:  # this layer has no kernel of this form; the others compete
                continue
            form = (kernel.name, kernel.note, tvm_ffi.structural_hash(kernel.prim_func))
            if form not in seen:
                seen.add(form)
                kernels[way] = kernel
        return kernels


def layer_key(layer: FusedLayer, sparse: bool | None) -> str:
    """Return what a decision depends on besides the machine; ``sparse`` is the format if that is fixed."""
    conv = None if layer.conv is None else vars(layer.conv)
    parts = {
        "kind": "linear" if layer.conv is None else "conv2d",
        "weight": layer.weight.shape,
        "dtype": str(layer.weight.dtype),
        "input": layer.x_shape,
        **({} if conv is None else {name: conv[name] for name in ("stride", "padding", "dilation", "groups")}),
        "epilogue": vars(layer.epilogue),
        "density": round(layer.density, 2),
        **({} if sparse is None else {"sparse": sparse}),
    }
    return json.dumps(parts, separators=(",", ":"))


def _context(target: CompileTarget) -> dict[str, Any]:
    versions = {"graphprune": __version__, "kernels": _kernels_digest(), "tvm": str(tvm.__version__)}
    machine = {"target": dict(target.spec), "cores": target.cores, "threads": thread_count()}
    return {**machine, "winograd": target.winograd, "versions": versions}


def _kernels_digest() -> str:
    """Return a digest of the kernels' code: what was measured before a change says nothing about what follows it."""
    files = sorted(Path(kernels.__file__).parent.glob("*.py"))
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()[:16]


def _require_this_machine(target: CompileTarget) -> None:
    hint = "tune on the machine that will run the model, and pass its cache to compile(cache=...)"
    if target.kind != "llvm":
        raise BackendError(f"layers are tuned on CPUs only, not for {target.kind}", hint="compile without tune=True")
    host = tvm.target.Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})
    missing = set(codegen.llvm_get_cpu_features(target.tvm)) - set(codegen.llvm_get_cpu_features(host))
    architectures = {
        str(triple).partition("-")[0]
        for triple in (target.spec.get("mtriple"), codegen.llvm_get_system_triple())
        if triple
    }
    if missing or len(architectures) > 1:
        raise BackendError(f"this machine cannot run code for {target}, so layers cannot be timed", hint=hint)


def _progress() -> Progress:
    shown = TextColumn("{task.fields[layer]}")
    return progress_bar(TextColumn("tuning"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), shown)
