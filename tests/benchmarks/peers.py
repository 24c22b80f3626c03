"""The engines that graphprune is compared with, each as a function that runs one model on one input.

A peer that is not installed, or that cannot take a model, is left out with the reason. All but DeepSparse run in the
benchmark's process; DeepSparse, whose last release needs an old numpy, runs in an interpreter of its own that answers
when it is its turn, and reports the time it took itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Engine:
    """A loaded model: ``run`` runs it once and returns the seconds it took; ``outputs`` are its results."""

    run: Callable[[], float]
    outputs: Outputs
    close: Callable[[], object] = lambda: None


class Unavailable(Exception):
    """Says why a peer cannot run a model."""


@dataclass(frozen=True)
class Job:
    """What every peer gets: the same weights, the same inputs, the same number of threads.

    ``plain`` is the user's own module with the pruned weights, where the pruned graph still has its shapes: what people
    would export to ONNX. Engines recognise its layers (a transformer's attention, for one) better than our graph's.
    """

    model: nn.Module
    plain: nn.Module | None
    inputs: tuple[torch.Tensor, ...]
    threads: int
    folder: Path
    deepsparse_python: str | None = None

    def onnx(self) -> Path:
        """Return the model as an ONNX file, exported once; from the graph only if there is no other module."""
        path = self.folder / "model.onnx"
        if not path.exists():
            module = self.plain or self.model
            fast_path = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)  # the fused op of nn.MultiheadAttention has no ONNX form
            try:
                torch.onnx.export(module, self.inputs, str(path), opset_version=14, dynamo=False)
            finally:
                torch.backends.mha.set_fastpath_enabled(fast_path)
        return path


def torch_eager(job: Job) -> Engine:
    """PyTorch as it is, in inference mode."""
    module = job.plain or job.model
    return _timed(lambda: _arrays(module(*job.inputs)))


def torch_compile(job: Job) -> Engine:
    """PyTorch's compiler with its default backend; it needs a C++ compiler."""
    torch.compiler.reset()
    compiled = torch.compile(job.plain or job.model)
    return _timed(lambda: _arrays(compiled(*job.inputs)))


def onnxruntime(job: Job) -> Engine:
    """ONNX Runtime's CPU provider, all optimisations on."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = runtime.InferenceSession(str(job.onnx()), options, providers=["CPUExecutionProvider"])
    feed = {spec.name: value.numpy() for spec, value in zip(session.get_inputs(), job.inputs)}
    return _timed(lambda: [np.asarray(output) for output in session.run(None, feed)])


def openvino(job: Job) -> Engine:
    """OpenVINO's CPU plugin in float32, tuned for latency."""
    from openvino import Core  # pyright: ignore[reportMissingImports]

    options = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = Core().compile_model(str(job.onnx()), "CPU", options)
    request = compiled.create_infer_request()
    feed = [value.numpy() for value in job.inputs]

    def run() -> Outputs:
        request.infer(feed, share_inputs=True)
        return [np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

    return _timed(run)


def deepsparse(job: Job) -> Engine:
    """DeepSparse 1.8.0, the last release that runs, in the interpreter given by ``--deepsparse``."""
    if job.deepsparse_python is None:
        raise Unavailable("give --deepsparse the python of an environment with deepsparse==1.8.0 and numpy<2")
    inputs = job.folder / "inputs.npz"
    np.savez(inputs, *(value.numpy() for value in job.inputs))
    worker = subprocess.Popen(
        [job.deepsparse_python, str(Path(__file__).with_name("deepsparse_worker.py")), str(job.onnx()), str(inputs),
         str(job.threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "NM_DISABLE_ANALYTICS": "True"},
    )  # fmt: skip
    if "ready" not in _answer(worker):
        worker.kill()
        raise Unavailable("DeepSparse cannot load the model")
    with np.load(f"{inputs}.out.npz") as arrays:
        outputs = [arrays[name] for name in arrays.files]

    def run() -> float:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        return _answer(worker)["seconds"]

    def close() -> None:
        worker.communicate()  # its input ends, and so does it

    return Engine(run, outputs, close)


PEERS: dict[str, Callable[[Job], Engine]] = {
    "torch": torch_eager,
    "torch.compile": torch_compile,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "deepsparse": deepsparse,
}


def load_peer(name: str, job: Job) -> Engine:
    """Return a peer with the model loaded.

    Raises:
        Unavailable: if it is not installed or refuses the model.
    """
    try:
        return PEERS[name](job)
    except Unavailable:
        raise
    except ImportError as error:
        raise Unavailable(f"not installed: {error.name} (pip install -r tests/benchmarks/peers.txt)") from error
    except Exception as error:  # whatever an engine raises for a model it cannot take
        lines = str(error).strip().splitlines() or [""]
        raise Unavailable(f"{type(error).__name__}: {lines[0]}") from error


@contextmanager
def job_folder() -> Iterator[Path]:
    """A folder for the files that engines load from; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="graphprune-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _arrays(result: object) -> Outputs:
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)  # type: ignore[call-overload]
    return [tensor.numpy() for tensor in tensors]


def _timed(function: Callable[[], Outputs]) -> Engine:
    def run() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return Engine(run, function())


def _answer(worker: subprocess.Popen[str]) -> dict[str, float]:
    """Return the worker's next JSON line; DeepSparse prints other lines too."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("{"):
            return json.loads(line)
    return {}
