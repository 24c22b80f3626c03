"""Loads and runs compiled artifacts with numpy and TVM's runtime; torch is neither needed nor imported.

An artifact is a folder, or a zip file, with ``model.so`` and ``manifest.json``. Loading checks that neither was
changed, that this TVM is the one it was built with and that this machine has the instructions it uses.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.errors import ArtifactError, BackendError
from graphprune.manifest import LIBRARY_NAME, check_fits, extract, read_manifest
from graphprune.signature import Signature

if TYPE_CHECKING:
    from graphprune.profiling import Profile

_ALIGNMENT = 64  # bytes; TVM's vector loads assume it


def set_num_threads(count: int) -> None:
    """Let compiled models called from this thread use ``count`` threads, at first all cores of the machine.

    More threads than cores bring nothing and are not started. To start fewer, or more, set the environment variable
    ``TVM_NUM_THREADS`` before the first model runs.

    Raises:
        BackendError: if ``count`` is not positive.
    """
    if count < 1:
        raise BackendError(f"the number of threads must be at least 1, got {count}")
    _offer_all_cores()
    _tvm().get_global_func("runtime.config_threadpool")(1, count)


def thread_count() -> int:
    """Return how many threads compiled models called from this thread use."""
    _offer_all_cores()
    return int(_tvm().get_global_func("runtime.NumThreads")())


def load(path: str | os.PathLike[str], device: int = 0) -> LoadedModel:
    """Load the artifact at ``path``, a folder or zip file made by ``CompiledModel.export``.

    ``device`` is the index of the GPU for a CUDA artifact.

    Raises:
        ArtifactError: if the artifact is missing, incomplete, changed since export, or made for another version of
            TVM or a machine with other instructions.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path, path, device)
    if not path.exists():
        raise ArtifactError(f"there is no artifact at {path}")
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        # The system keeps a loaded library alive after its file is gone, so the folder may vanish on return.
        extract(path, Path(folder))
        return _load_folder(Path(folder), path, device)


class Executor:
    """A compiled function on flat tensors: checks the inputs, passes them without copying, and runs."""

    def __init__(self, module: Any, device: Any, signature: Signature) -> None:
        """Set up a virtual machine for ``module``, a ``tvm.runtime.Module`` or ``Executable``, on ``device``."""
        from tvm.runtime.vm import VirtualMachine

        _offer_all_cores()
        self.signature = signature
        self._device = device
        self._module = module
        self._machine = VirtualMachine(module, device)
        self._observed: Any = None  # a second machine for profiles: what observes one cannot be taken off again
        self._main = self._machine["main"]
        self._lock = threading.Lock()  # a virtual machine keeps state during a call

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the output ``tvm.runtime.Tensor`` objects for numpy arrays or tensors that speak DLPack."""
        tensors = self._import_all(inputs)
        with self._lock:
            return list(self._main(*tensors))

    def synchronize(self) -> None:
        """Wait until the device has done what it was given; a CPU always has."""
        self._device.sync()

    def time_functions(self, inputs: Sequence[Any]) -> list[tuple[str, float]]:
        """Run once and return (name, seconds) for each compiled function in the order of their calls.

        The virtual machine's own bookkeeping is left out. What asking the clock costs is taken off: the time that its
        cheapest step seems to need.
        """
        from tvm.runtime.vm import VirtualMachine

        tensors = self._import_all(inputs)
        with self._lock:
            if self._observed is None:
                self._observed = VirtualMachine(self._module, self._device)
            clock = _CallClock(self._device)
            self._observed.set_instrument(clock)
            self._observed["main"](*tensors)
        overhead = min((seconds for _, seconds in clock.times), default=0.0)
        own = [(name, seconds) for name, seconds in clock.times if not name.startswith("vm.builtin.")]
        return [(name, max(0.0, seconds - overhead)) for name, seconds in own]

    def _import_all(self, inputs: Sequence[Any]) -> list[Any]:
        return [self._import(value, spec) for value, spec in zip(inputs, self.signature.inputs, strict=True)]

    def _import(self, value: Any, spec: Any) -> Any:
        runtime = _tvm().runtime
        if isinstance(value, np.ndarray):
            spec.check(value.shape, value.dtype.name)
            usable = value.flags.c_contiguous and value.flags.writeable and value.ctypes.data % _ALIGNMENT == 0
            if not usable or self._device.dlpack_device_type() != runtime.cpu().dlpack_device_type():
                return runtime.tensor(np.ascontiguousarray(value), self._device)
            return runtime.from_dlpack(value)
        if not hasattr(value, "__dlpack__"):
            raise BackendError(
                f"input {spec.name!r}: expected an array or tensor of {spec.dtype}{list(spec.shape)}, "
                f"got {type(value).__name__}",
                hint="pass a numpy array or a tensor",
            )
        try:
            tensor = runtime.from_dlpack(value)
        except Exception as error:  # whatever the other library raises: no values (meta device), no such device, ...
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise BackendError(
                f"input {spec.name!r}: the {type(value).__name__} cannot be passed: {lines[0]}",
                hint="pass a tensor with values, in the memory of the CPU or of the target's device",
            ) from error
        spec.check([int(size) for size in tensor.shape], str(tensor.dtype))
        return tensor if tensor.device == self._device else tensor.copyto(self._device)


class _CallClock:
    """What a virtual machine calls before and after each function: notes how long it took."""

    def __init__(self, device: Any) -> None:
        self.times: list[tuple[str, float]] = []
        self._device = device
        self._start = 0.0

    def __call__(self, function: Any, name: str, before: bool, *rest: Any) -> int:
        if before:
            self._start = time.perf_counter()
        else:
            self._device.sync()
            self.times.append((str(name), time.perf_counter() - self._start))
        return 0  # go on


class LoadedModel:
    """A compiled model that takes and returns numpy arrays.

    Attributes:
        manifest: the artifact's manifest, JSON data.
        signature: what it takes and returns.
    """

    def __init__(self, executor: Executor, manifest: Mapping[str, Any]) -> None:
        """Wrap an executor; use :func:`load`."""
        self.manifest = dict(manifest)
        self.signature = executor.signature
        self._executor = executor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on numpy arrays, nested as the original model's arguments; the result nests as its result.

        Raises:
            BackendError: if an argument is missing, or has another shape or dtype than the model was compiled for.
        """
        outputs = self._executor.run(self.signature.bind(args, kwargs))
        return self.signature.build_result([output.numpy() for output in outputs])

    def profile(self, *args: Any, repeats: int = 20, **kwargs: Any) -> Profile:
        """Return the time of each kernel call on these inputs; see :class:`graphprune.profiling.Profile`.

        Raises:
            BackendError: if an argument is missing, or has another shape or dtype than the model was compiled for.
        """
        from graphprune.kernel_calls import KernelCall
        from graphprune.profiling import profile

        calls = [KernelCall.from_dict(call) for call in self.manifest.get("report", {}).get("calls", ())]
        return profile(self._executor, self.signature.bind(args, kwargs), calls, repeats)


def _offer_all_cores() -> None:
    """Tell TVM's thread pool, which starts with the first model, how many cores there are.

    Left alone it takes half of the processors, on the guess that each core shows up as two.
    """
    os.environ.setdefault("TVM_NUM_THREADS", str(core_count()))


def core_count() -> int:
    """Return the number of physical cores this process may use; processors where the system does not tell cores."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(siblings.format(processor)).read_text() for processor in processors})
    except OSError:
        return len(processors)


def _tvm() -> Any:
    try:
        import tvm
    except ImportError as error:
        raise BackendError(
            f"TVM is not installed or cannot be loaded: {error}",
            hint="pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1",
        ) from error
    return tvm


def _load_folder(folder: Path, shown: Path, device: int) -> LoadedModel:
    manifest = read_manifest(folder, shown)
    tvm = _tvm()
    check_fits(shown, manifest, tvm.__version__)
    target_device = prepare_runtime(manifest["target"], device)
    try:
        with without_scope_warnings():
            module = tvm.runtime.load_module(str(folder / LIBRARY_NAME))
            executor = Executor(module, target_device, Signature.from_dict(manifest["signature"]))
    except Exception as error:  # dlopen and TVM raise RuntimeError, OSError or tvm_ffi's own errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"{shown}: the compiled library does not load: {lines[-1]}") from error
    return LoadedModel(executor, manifest)


@contextmanager
def without_scope_warnings() -> Iterator[None]:
    """Keep TVM 0.27 from printing one "Scope Loaded" or "Scope Saving" warning per constant; pass on all else."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            captured.seek(0)
            for line in captured:
                if not line.rstrip().endswith((b"Warning: Scope Loaded:", b"Warning: Scope Saving:")):
                    os.write(original, line)
            os.close(original)


_DEVICE_LOADERS: dict[str, Callable[[int, Mapping[str, Any]], Any]] = {}


def register_device(kind: str, loader: Callable[[int, Mapping[str, Any]], Any]) -> None:
    """Register how a target kind gets its device.

    ``loader(index, target)`` loads the kind's runtime and returns the TVM device, after checking that it fits the
    target.
    """
    _DEVICE_LOADERS[kind] = loader


def prepare_runtime(target: Mapping[str, Any], index: int = 0) -> Any:
    """Load the runtime of a target if it needs one and return the TVM device.

    Raises:
        ArtifactError: if the target's kind is unknown.
        BackendError: if there is no such device on this machine, or it is another one than the target says.
    """
    kind = target["kind"]
    if kind not in _DEVICE_LOADERS:
        raise ArtifactError(f"no runtime for target kind {kind!r}", hint=f"known: {', '.join(sorted(_DEVICE_LOADERS))}")
    return _DEVICE_LOADERS[kind](index, target)


register_device("llvm", lambda index, target: _tvm().cpu())


def _cuda_device(index: int, target: Mapping[str, Any]) -> Any:
    from graphprune.backend.cuda.device import cuda_device

    _tvm()
    return cuda_device(index, target["arch"])


register_device("cuda", _cuda_device)
