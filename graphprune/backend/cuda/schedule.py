"""Gives every function a thread binding: TVM's dlight rules, tried in order, the last of which takes anything.

A function that one rule cannot take goes to the next one; what no rule takes is an error, because a function without
thread bindings cannot run on the device at all.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import dlight

from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

# dlight picks tensor cores from this architecture on, by way of a module that takes many seconds to import and of
# warp-matrix code. The rules see an older architecture; the code is still compiled for the real one.
_ARCH_WITHOUT_TENSOR_CORES = "sm_61"


def schedule_for_cuda(module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, dict[str, str]]:
    """Schedule every PrimFunc that is not marked ``tirx.is_scheduled``.

    Returns:
        The module, and nothing in the dictionary of functions left alone: there are none.

    Raises:
        BackendError: if no rule can schedule a function.
    """
    rules = (
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    )
    rule_target = tvm.target.Target({**target.spec, "arch": _ARCH_WITHOUT_TENSOR_CORES})
    result = tvm.IRModule({}, attrs=module.attrs)
    with rule_target:
        for variable, function in module.functions.items():
            if isinstance(function, tirx.PrimFunc) and not _is_scheduled(function):
                function = _schedule(function, variable.name_hint, rules, rule_target)
            result[variable] = function
    return result, {}


def has_thread_binding(function: tirx.PrimFunc) -> bool:
    """Say whether a function launches GPU threads."""
    found = False

    def visit_loop(loop: tirx.For) -> None:
        nonlocal found
        found = found or loop.kind == tirx.ForKind.THREAD_BINDING

    def visit_attribute(statement: tirx.AttrStmt) -> None:
        nonlocal found
        found = found or statement.attr_key == "thread_extent"

    tvm_ffi.structural_walk(function.body, [(tirx.For, visit_loop), (tirx.AttrStmt, visit_attribute)], order="post")
    return found


def _is_scheduled(function: tirx.PrimFunc) -> bool:
    return bool(function.attrs) and "tirx.is_scheduled" in function.attrs


def _schedule(
    function: tirx.PrimFunc, name: str, rules: tuple[dlight.ScheduleRule, ...], target: tvm.target.Target
) -> tirx.PrimFunc:
    failures = []
    for rule in rules:
        try:
            space = rule.apply(function, target, False)
        except Exception as error:  # ScheduleError, or an assertion: the rule does not fit, and has changed nothing
            failures.append(f"{type(rule).__name__}: {type(error).__name__}")
            continue
        schedule = space[0] if isinstance(space, list) else space
        if schedule is None:
            continue
        scheduled = schedule.mod["main"]
        if has_thread_binding(scheduled):
            return scheduled.with_attr("tirx.is_scheduled", True)
        failures.append(f"{type(rule).__name__}: left loops without threads")
    reason = "; ".join(failures) or "every rule declined"
    raise BackendError(f"no GPU schedule fits the function {name!r} ({reason})")
