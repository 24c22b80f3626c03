"""The generic CPU schedule, for every function that is not one of our kernels.

Per loop nest: intermediate element-wise stages are inlined; outer loops are fused and run in parallel; a nest that
reduces over something other than the contiguous axis keeps a register tile of that axis innermost; one that reduces
over the contiguous axis itself is split into lanes (rfactor). The innermost loop is left to LLVM's vectoriser or
vectorised outright.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import s_tir, tirx

from graphprune.backend.target import CompileTarget

_PARALLEL_WORK = 8192  # scalar operations from which on waking threads pays
_TILE_VECTORS = 4  # vectors of accumulators that a reduction keeps in registers


def schedule_for_cpu(module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, dict[str, str]]:
    """Schedule every PrimFunc without ``tirx.is_scheduled``.

    Returns:
        The module, and for each function of which some part was left as it was, the reason. Such a function is
        correct, only slow.
    """
    result = tvm.IRModule({}, attrs=module.attrs)
    reasons: dict[str, str] = {}
    for variable, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc) and not (function.attrs and "tirx.is_scheduled" in function.attrs):
            function, reason = _schedule(function, target.lanes)
            if reason:
                reasons[variable.name_hint] = reason
        result[variable] = function
    return result, reasons


def _schedule(function: tirx.PrimFunc, lanes: int) -> tuple[tirx.PrimFunc, str]:
    try:
        schedule = s_tir.Schedule(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
        _inline_stages(schedule)
        blocks = _blocks(schedule)
    except Exception as error:  # ScheduleError, or no blocks at all in a function written as plain loops
        return function, f"not a function of blocks: {_first_line(error)}"
    reasons = []
    for block in blocks:
        try:
            _schedule_nest(schedule, block, lanes)
        except Exception as error:  # each primitive checks first and then changes, so the schedule stays valid
            reasons.append(f"{_get(schedule, block).name_hint}: {_first_line(error)}")
    scheduled = schedule.mod["main"]
    for key in ("global_symbol", "tirx.is_scheduled"):
        if function.attrs and key in function.attrs:
            scheduled = scheduled.with_attr(key, function.attrs[key])
    if not (function.attrs and "global_symbol" in function.attrs):
        scheduled = scheduled.without_attr("global_symbol")
    return scheduled.with_attr("tirx.is_scheduled", True), "; ".join(reasons)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    described = [line for line in lines if "rror" in line]
    return (described or lines or [type(error).__name__])[-1][:200]


def _get(schedule: s_tir.Schedule, variable: Any) -> Any:
    """Return the loop or block that a schedule's variable stands for."""
    return schedule.get(variable)


def _blocks(schedule: s_tir.Schedule) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root", func_name="main")))


def _is_spatial(schedule: s_tir.Schedule, block: Any) -> bool:
    return all(variable.iter_type == tirx.IterVar.DataPar for variable in _get(schedule, block).iter_vars)


def _inline_stages(schedule: s_tir.Schedule) -> None:
    """Inline each element-wise stage into its only consumer, or else into its producer."""
    for block in _blocks(schedule):
        if not _is_spatial(schedule, block):
            continue
        consumers = schedule.get_consumers(block)
        if len(consumers) == 1:
            _attempt(lambda block=block: schedule.compute_inline(block))


def _attempt(primitive: Any) -> bool:
    try:
        primitive()
    except Exception:  # ScheduleError: the primitive does not apply, and nothing has changed
        return False
    return True


def _extent(schedule: s_tir.Schedule, loop: Any) -> int | None:
    extent = _get(schedule, loop).extent
    return int(extent) if isinstance(extent, (int, tirx.IntImm)) else None


def _schedule_nest(schedule: s_tir.Schedule, block: Any, lanes: int) -> None:
    loops = list(schedule.get_loops(block))
    if not loops:
        return
    extents = [_extent(schedule, loop) for loop in loops]
    work = math.prod(extent if extent is not None else lanes for extent in extents)
    kinds = [variable.iter_type for variable in _get(schedule, block).iter_vars]
    if len(kinds) != len(loops):
        raise ValueError("loops and block variables do not correspond")
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.CommReduce]
    if len(spatial) + len(reduced) != len(loops):
        raise ValueError("a loop is neither parallel nor a reduction")
    if not reduced:
        _schedule_elementwise(schedule, spatial, work, lanes)
    elif spatial and _is_contiguous_over(schedule, block, spatial[-1]):
        _schedule_outer_reduction(schedule, block, spatial, reduced, work, lanes)
    else:
        _schedule_inner_reduction(schedule, block, spatial, reduced, work, lanes)


def _parallelize(schedule: s_tir.Schedule, loops: list[Any], work: int) -> None:
    if loops and work >= _PARALLEL_WORK:
        schedule.parallel(schedule.fuse(*loops) if len(loops) > 1 else loops[0])


def _schedule_elementwise(schedule: s_tir.Schedule, spatial: list[Any], work: int, lanes: int) -> None:
    inner = spatial[-1]
    extent = _extent(schedule, inner)
    if len(spatial) == 1:
        if extent is None or work < _PARALLEL_WORK:
            return
        outer, _ = schedule.split(inner, [None, 16 * lanes])
        schedule.parallel(outer)
        return
    _parallelize(schedule, spatial[:-1], work)


def _is_contiguous_over(schedule: s_tir.Schedule, block: Any, loop: Any) -> bool:
    """Say whether neighbouring values of ``loop``, the last spatial one, read neighbours and fill vectors."""
    extent = _extent(schedule, loop)
    if extent is not None and extent < 4:
        return False
    variables = _get(schedule, block).iter_vars
    wanted = [variable.var for variable in variables if variable.iter_type == tirx.IterVar.DataPar][-1]
    for region in _get(schedule, block).reads:
        last = region.region[-1].min
        if _mentions(last, wanted):
            return True
    return False


def _mentions(expression: Any, variable: Any) -> bool:
    """Say whether ``variable`` occurs in ``expression``: as a linear term, or in some way that is not linear."""
    coefficients = tvm.sym.detect_linear_equation(expression, [variable])
    return len(coefficients) == 0 or not (isinstance(coefficients[0], tirx.IntImm) and int(coefficients[0]) == 0)


def _schedule_outer_reduction(
    schedule: s_tir.Schedule, block: Any, spatial: list[Any], reduced: list[Any], work: int, lanes: int
) -> None:
    """Keep a tile of the last spatial axis in registers while reducing."""
    *outer, inner = spatial
    extent = _extent(schedule, inner)
    tile = _TILE_VECTORS * lanes
    if extent is not None and extent > tile:
        chunk, inner = schedule.split(inner, [None, tile])
        outer.append(chunk)
    accumulators = schedule.cache_write(block, 0, "local")
    schedule.reorder(*outer, *reduced, inner)
    fused = schedule.fuse(*outer) if len(outer) > 1 else (outer[0] if outer else None)
    if fused is not None:
        schedule.reverse_compute_at(accumulators, fused)
        if work >= _PARALLEL_WORK:
            schedule.parallel(fused)
    if extent is not None and (extent % tile == 0 or extent <= tile):
        schedule.vectorize(inner)
    schedule.decompose_reduction(block, reduced[0])


def _schedule_inner_reduction(
    schedule: s_tir.Schedule, block: Any, spatial: list[Any], reduced: list[Any], work: int, lanes: int
) -> None:
    """Reduce the contiguous axis in lanes, then the lanes."""
    fused = schedule.fuse(*reduced) if len(reduced) > 1 else reduced[0]
    extent = _extent(schedule, fused)
    width = 1 if extent is None else max(d for d in range(1, lanes + 1) if extent % d == 0)
    if width < 4 or extent == width:
        _parallelize(schedule, spatial, work)
        return
    _, lane = schedule.split(fused, [None, width])  # a split that does not divide loses its guard in rfactor
    partial = schedule.rfactor(lane, factor_axis=len(spatial))
    if spatial:
        row = schedule.fuse(*schedule.get_loops(block)[: len(spatial)]) if len(spatial) > 1 else spatial[0]
        schedule.compute_at(partial, row)
        if work >= _PARALLEL_WORK:
            schedule.parallel(row)
    step, lanes_loop = schedule.get_loops(partial)[-2:]
    if not _attempt(lambda: schedule.vectorize(lanes_loop)):  # rfactor and compute_at leave the two in either order
        schedule.reorder(lanes_loop, step)
        schedule.vectorize(step)
