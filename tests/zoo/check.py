"""Prunes one zoo model and checks the result four ways: smaller, runs, equals the masked original, exports again."""

from __future__ import annotations

import gc
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from graphprune.analysis import analyze
from graphprune.errors import GraphPruneError
from graphprune.interpret import run_masked
from graphprune.passes import PruneChannels
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from graphprune.units.kinds import KINDS
from tests.zoo.batch_size import open_batch, with_batch
from tests.zoo.models import make
from tests.zoo.reach import reach_of

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        name: the model.
        status: "pruned", "refused" (a GraphPruneError that says why), "wrong" (a check failed) or "crashed".
        reason: for the last three.
        parameters: number of parameters before and after.
        macs: multiply-accumulates before and after.
        error: largest difference to the masked original, relative to the largest output.
        dimensions: number of prunable dimensions.
        unknown_ops: ops without a rule.
        reach: share of the parameters that some dimension reaches.
        unreached: reasons for the rest, with numbers of parameters.
        seconds: for everything together.
    """

    name: str
    status: str
    reason: str = ""
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    error: float = float("nan")
    dimensions: int = 0
    unknown_ops: tuple[str, ...] = ()
    reach: float = float("nan")
    unreached: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def check(name: str, ratio: float = 0.5, *, all_kinds: bool = False, dynamic_batch: bool = False) -> Outcome:
    """Prune ``ratio`` of the model ``name`` and check the result; never raises.

    Args:
        name: of the zoo.
        ratio: share of every dimension to remove.
        all_kinds: prune dimensions of all kinds, not only those that ``PruneChannels`` takes by default.
        dynamic_batch: trace with an open batch size and compare at another one too.
    """
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            facts = _prune_and_compare(name, ratio, all_kinds, dynamic_batch)
    except GraphPruneError as error:
        facts = {"status": "refused", "reason": f"{type(error).__name__}: {error}"}
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        facts = {"status": "crashed", "reason": reason}
    gc.collect()
    return Outcome(name=name, seconds=time.perf_counter() - start, **facts)


def _prune_and_compare(name: str, ratio: float, all_kinds: bool, dynamic_batch: bool) -> dict[str, Any]:
    example = make(name)
    if dynamic_batch:  # a batch of one would be taken for a constant
        example = with_batch(example, 2)
    shapes = open_batch(example) if dynamic_batch else None
    gm = trace(example.model, example.args, example.kwargs, dynamic_shapes=shapes)
    analysis = analyze(gm)
    prune_pass = PruneChannels(ratio=ratio, kinds=KINDS) if all_kinds else PruneChannels(ratio=ratio)
    plan = prune_pass.plan(gm, analysis=analysis)
    small = shrink(gm, plan, analysis=analysis)
    error = 0.0
    for inputs in [example, with_batch(example, 3)] if dynamic_batch else [example]:
        with torch.no_grad():
            actual = small(*inputs.args, **inputs.kwargs)
            expected = run_masked(gm, analysis.typing, analysis.masks(plan), *inputs.args, **inputs.kwargs)
        error = max(error, relative_error(actual, expected))
    torch.export.export(small, example.args, example.kwargs, dynamic_shapes=shapes)
    reach = reach_of(analysis)
    problem = _problem(plan.cost["parameters"], error)
    return {
        "status": "wrong" if problem else "pruned",
        "reason": problem,
        "parameters": plan.cost["parameters"],
        "macs": plan.cost["macs"],
        "error": error,
        "dimensions": len(analysis.dimensions),
        "unknown_ops": tuple(analysis.unknown_ops),
        "reach": reach.share,
        "unreached": reach.reasons,
    }


def _problem(parameters: tuple[int, int], error: float) -> str:
    if not error <= TOLERANCE:
        return f"differs from the masked original by {error:.1e}"
    if parameters[1] >= parameters[0]:
        return "nothing was removed"
    return ""


def relative_error(actual: Any, expected: Any) -> float:
    """Return the largest difference of two pytrees of tensors, relative to the largest value of each tensor.

    Raises:
        AssertionError: if they do not have the same shapes, or an expected output is zero or not finite throughout.
    """
    pairs = list(zip(tree_leaves(actual), tree_leaves(expected), strict=True))
    worst = 0.0
    for a, e in pairs:
        if not isinstance(e, torch.Tensor):
            assert a == e, f"an output is {a!r}, expected {e!r}"
            continue
        assert a.shape == e.shape, f"an output has shape {tuple(a.shape)}, expected {tuple(e.shape)}"
        scale = e.abs().max().double().item()
        assert scale > 0, "an output of the reference is zero everywhere, so the comparison says nothing"
        worst = max(worst, (a.double() - e.double()).abs().max().item() / scale)
    assert pairs, "the model has no outputs to compare"
    return worst
