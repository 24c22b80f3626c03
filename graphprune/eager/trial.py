"""Runs a module whose sizes were changed and says how far it gets and where it goes wrong.

While the module's Python code runs, the shape of every tensor it makes is compared with the shapes that the shrunk
graph has in the same module. So a wrong size is noticed where it is used, not where it finally breaks something.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from graphprune.graph import module_paths, run_interpreter

Shape = tuple[int, ...]
_LIBRARY = ("/torch/", "/graphprune/")


@dataclass(frozen=True)
class Expectation:
    """What the shrunk graph does on the example inputs.

    Attributes:
        outputs: leaves of its result.
        shapes: module path -> shapes of the tensors that the module's own code makes or takes.
        surprises: positions of tensors that are not in the graph even of the unchanged model, and say nothing.
    """

    outputs: list[Any]
    shapes: Mapping[str, set[Shape]]
    surprises: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Fault:
    """Where a trial went wrong.

    Attributes:
        progress: number of tensors made before; comparable between trials of one model.
        suspects: paths of modules to blame, the likeliest first.
        source: the line of the model's code, ``file:line: code``.
        message: what was wrong.
        names: attributes and globals that the running functions mention.
    """

    progress: int
    suspects: tuple[str, ...]
    source: str | None
    message: str
    names: frozenset[str] = frozenset()


def expect(small: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Expectation:
    """Run the shrunk graph on the example inputs and record shapes by module."""
    recorder = _Recorder(small)
    with torch.no_grad(), _fixed_seed():
        outputs = run_interpreter(recorder, args, kwargs)
    return Expectation(tree_leaves(outputs), recorder.shapes)


def expected_surprises(
    model: nn.Module, gm: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> frozenset[int]:
    """Return the positions of tensors that the unchanged model makes and its own graph does not show."""
    watcher = _Watcher(model, expect(gm, args, kwargs).shapes)
    with torch.no_grad(), _fixed_seed(), watcher:
        model(*args, **kwargs)
    return frozenset(watcher.surprises)


def run_trial(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    expected: Expectation,
    *,
    stop_before: int = 0,
    tolerance: float = 1e-5,
) -> Fault | None:
    """Run ``model`` and compare shapes and results with ``expected``; return None if the results agree.

    The run is given up at an unexpected tensor up to position ``stop_before``.
    """
    watcher = _Watcher(model, expected.shapes, expected.surprises, stop_before)
    model.eval()  # modules that keep what they computed from weights and sizes forget it now
    try:
        with torch.no_grad(), _fixed_seed(), watcher:
            outputs = model(*args, **kwargs)
    except _Stopped:
        return watcher.surprise
    except Exception as error:
        return _raised(error, watcher)
    difference = _difference(tree_leaves(outputs), expected.outputs, tolerance)
    if difference is None:
        return None
    if watcher.surprise is not None:
        return watcher.surprise
    return Fault(watcher.count, (), None, difference)


class _Stopped(Exception):
    """Ends a run that is known to be no better than the one before."""


class _Recorder(fx.Interpreter):
    """Remembers the shapes of results and operands of every node under the module that made it."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=True)
        self.shapes: dict[str, set[Shape]] = defaultdict(set)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n.op == "call_function":
            paths = module_paths(n)
            operands = [self.env.get(operand) for operand in n.all_input_nodes]
            for value in tree_leaves((result, operands)):
                if isinstance(value, torch.Tensor) and paths:
                    self.shapes[paths[0]].add(tuple(value.shape))
        return result


class _Watcher(TorchFunctionMode):
    """Notes the first tensor of a shape that the shrunk graph does not have in the module that is running."""

    def __init__(
        self,
        model: nn.Module,
        shapes: Mapping[str, set[Shape]],
        ignored: frozenset[int] = frozenset(),
        stop_before: int = 0,
    ) -> None:
        super().__init__()
        self._ignored = ignored
        self._stop_before = stop_before
        self._paths = {module: path for path, module in model.named_modules(remove_duplicate=False)}
        self._shapes: dict[nn.Module, set[Shape]] = defaultdict(set)
        for path, module in model.named_modules(remove_duplicate=False):
            self._shapes[module] |= shapes.get(path, set())
        self._handles: list[Any] = []
        self._running: list[nn.Module] = []
        self.count = 0
        self.surprise: Fault | None = None
        self.surprises: list[int] = []

    @property
    def running(self) -> tuple[str, ...]:
        """Paths of the modules that are running, innermost first."""
        return tuple(self._paths.get(module, "") for module in reversed(self._running))

    def path_of(self, module: nn.Module) -> str | None:
        """Return the path of a module of the model."""
        return self._paths.get(module)

    def __enter__(self) -> _Watcher:
        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._running.pop()

        self._handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        return super().__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(exc_type, exc_val, exc_tb)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self._look_at(func, tuple(value.shape))
        return result

    def _look_at(self, func: Callable[..., Any], shape: Shape) -> None:
        self.count += 1
        known = self._shapes[self._running[-1]] if self._running else set()
        if not known or shape in known or not shape or self.count in self._ignored:
            return
        self.surprises.append(self.count)
        if self.surprise is None:
            self.surprise = self._surprise(func, shape)
            if self.count <= self._stop_before:
                raise _Stopped

    def _surprise(self, func: Callable[..., Any], shape: Shape) -> Fault:
        frames = traceback.extract_stack()[:-3]
        message = f"{getattr(func, '__name__', func)} makes a tensor of shape {list(shape)}, which is unexpected"
        return Fault(self.count, self.running, _source(frames), message, _names(traceback.walk_stack(None)))


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """Run random ops with the same seed every time and leave the generators as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


def _raised(error: Exception, watcher: _Watcher) -> Fault:
    """Blame the module of the first surprise before the error, then those whose code was running, inwards out."""
    frames = traceback.extract_tb(error.__traceback__)
    suspects: list[str] = []
    step = error.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self", step.tb_frame.f_locals.get("module"))
        path = watcher.path_of(owner) if isinstance(owner, nn.Module) else None
        if path is not None and path not in suspects:
            suspects.append(path)
        step = step.tb_next
    message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    names = _names(traceback.walk_tb(error.__traceback__))
    own = Fault(watcher.count, tuple(reversed(suspects)), _source(frames), message, names)
    if watcher.surprise is None:
        return own
    early = watcher.surprise
    blamed = tuple(dict.fromkeys((*early.suspects, *own.suspects)))
    message = f"{early.message}; then {message}"
    return Fault(early.progress, blamed, early.source or own.source, message, early.names | own.names)


def _names(frames: Iterable[tuple[FrameType, int]]) -> frozenset[str]:
    return frozenset(name for frame, _ in frames for name in frame.f_code.co_names)


def _source(frames: traceback.StackSummary | list[traceback.FrameSummary]) -> str | None:
    """Return the innermost line outside torch, ``file:line: code``."""
    outside = [frame for frame in frames if not any(part in frame.filename for part in _LIBRARY)]
    if not outside:
        return None
    frame = outside[-1]
    return f"{frame.filename}:{frame.lineno}: {(frame.line or '').strip()}"


def _difference(actual: list[Any], expected: list[Any], tolerance: float) -> str | None:
    """Say how two lists of outputs differ, or return None if they agree."""
    if len(actual) != len(expected):
        return f"the module returns {len(actual)} values, the shrunk graph {len(expected)}"
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if not isinstance(e, torch.Tensor):
            if a != e:
                return f"output {i} is {a!r}, expected {e!r}"
        elif not isinstance(a, torch.Tensor) or a.shape != e.shape:
            return f"output {i} has shape {list(getattr(a, 'shape', []))}, expected {list(e.shape)}"
        elif not (e.is_meta or a.is_meta) and not _close(a, e, tolerance):
            return f"output {i} differs by {(a.double() - e.double()).abs().max():.1e} from that of the shrunk graph"
    return None


def _close(a: torch.Tensor, e: torch.Tensor, tolerance: float) -> bool:
    if e.is_complex():
        a, e = torch.view_as_real(a), torch.view_as_real(e)
    if not e.is_floating_point():
        return torch.equal(a, e)
    tolerance = max(tolerance, 50 * torch.finfo(e.dtype).eps)
    finite = e.isfinite()
    if not torch.equal(finite, a.isfinite()):
        return False
    a, e = a[finite].double(), e[finite].double()
    return not e.numel() or bool((a - e).abs().max() <= tolerance * e.abs().max().clamp(min=1e-30))
