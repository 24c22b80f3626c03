"""``graphprune bench``: time a model in PyTorch against its pruned and compiled forms, fairly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.compile_command import TargetOption, target_options
from graphprune.cli.models import InputOption, LoadedModel, ModelArgument, PassOption, load_model, read_passes
from graphprune.cli.screen import JsonFlag, print_json, print_table, progress

if TYPE_CHECKING:
    from graphprune.compiler import CompiledModel
    from graphprune.measure import Timing
    from graphprune.pass_base import Pass
    from graphprune.profiling import Profile


def bench(
    model: ModelArgument,
    artifacts: Annotated[
        list[Path] | None, typer.Argument(metavar="[ARTIFACT]...", help="Artifacts to time on the same inputs.")
    ] = None,
    passes: PassOption = None,
    inputs: InputOption = None,
    target: TargetOption = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Number of threads; repeat for several.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds to time.")] = 30,
    compile_model: Annotated[bool, typer.Option("--compile/--no-compile", help="Also compile and time it.")] = True,
    show_profile: Annotated[
        bool, typer.Option("--profile", help="Also print the time of each kernel call of the compiled model.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Time MODEL in eager PyTorch, pruned by the passes, and compiled, in alternating runs."""
    if show_profile and not compile_model:
        raise typer.BadParameter("--profile looks into the compiled model, and --no-compile makes none")
    chosen = read_passes(passes)
    options = target_options(target)
    loaded = load_model(model, inputs)
    candidates, compiled = _candidates(loaded, chosen, options, artifacts or (), compile_model)
    results: list[dict[str, Any]] = []
    profiles: list[Profile] = []
    counts = threads or [_default_threads()]
    for count in counts:
        with progress(f"timing with {count} threads"), _inference(count):
            from graphprune.measure import PAUSE, interleaved

            timings = interleaved(candidates, repeats=repeats, turn=4, pause=PAUSE)
            if show_profile and compiled is not None:
                profiles.append(compiled.profile(*loaded.args, repeats=repeats, **loaded.kwargs))
        results += [_row(count, timing, next(iter(timings.values()))) for timing in timings.values()]
    if as_json:
        print_json({"times": results, "profiles": [profile.as_dict() for profile in profiles]} if profiles else results)
        return
    print_table(f"{loaded.name}: milliseconds", list(results[0]), [list(row.values()) for row in results])
    for count, profile in zip(counts, profiles):
        print(f"\nwith {count} threads: {profile}")


def _candidates(
    loaded: LoadedModel,
    passes: Sequence[Pass],
    options: dict[str, Any],
    artifacts: Sequence[Path],
    compile_model: bool,
) -> tuple[dict[str, Callable[[], object]], CompiledModel | None]:
    """Return what to time, and the compiled model if there is one."""
    from torch import nn

    import graphprune

    args, kwargs = loaded.args, loaded.kwargs
    eager = loaded.model if isinstance(loaded.model, nn.Module) else loaded.model.module()
    candidates: dict[str, Callable[[], object]] = {"torch eager": lambda: eager(*args, **kwargs)}
    subject: Any = loaded.model
    compiled = None
    if passes:
        with progress("pruning"):
            subject = pruned = graphprune.prune(loaded.model, passes, example_inputs=args, example_kwargs=kwargs)
        candidates["pruned, torch eager"] = lambda: pruned(*args, **kwargs)
    if compile_model:
        with progress("compiling"):
            compiled = graphprune.compile(subject, None, example_inputs=args, example_kwargs=kwargs, **options)
        candidates["pruned, compiled" if passes else "compiled"] = lambda run=compiled: run(*args, **kwargs)
    for path in artifacts:
        artifact = graphprune.runtime.load(path)
        numpy_args, numpy_kwargs = _to_numpy((args, kwargs))
        candidates[path.name] = lambda a=artifact, x=numpy_args, y=numpy_kwargs: a(*x, **y)
    return candidates, compiled


def _to_numpy(inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu().numpy(), inputs)


def _default_threads() -> int:
    import torch

    return torch.get_num_threads()


class _inference:
    """Within the block torch and TVM use ``threads`` threads, and torch records no gradients."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        import torch

        from graphprune import runtime
        from graphprune.errors import BackendError

        self._before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        with suppress(BackendError):  # without TVM there is only torch to time
            runtime.set_num_threads(self._threads)
        self._mode = torch.inference_mode()
        self._mode.__enter__()

    def __exit__(self, *error: object) -> None:
        import torch

        self._mode.__exit__(None, None, None)
        torch.set_num_threads(self._before)


def _row(threads: int, timing: Timing, reference: Timing) -> dict[str, Any]:
    first, third = timing.quartiles
    return {
        "threads": threads,
        "candidate": timing.name,
        "median": round(timing.median * 1e3, 3),
        "minimum": round(timing.minimum * 1e3, 3),
        "quartiles": f"{first * 1e3:.3f}-{third * 1e3:.3f}",
        "runs": len(timing.seconds),
        "speed-up": f"{reference.median / timing.median:.2f}×",
    }
