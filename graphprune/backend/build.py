"""From a lowered graph to an executable: legalise, fuse, schedule, compile."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from graphprune.backend import Backend
from graphprune.backend.calls import call_table
from graphprune.backend.fusion import keep_producers_out
from graphprune.backend.lower import LoweredGraph
from graphprune.backend.target import CompileTarget
from graphprune.backend.vector_math import legalize_map
from graphprune.errors import BackendError
from graphprune.kernel_calls import KernelCall


def build(
    lowered: LoweredGraph, backend: Backend, target: CompileTarget
) -> tuple[tvm.runtime.Executable, dict[str, str], tuple[KernelCall, ...]]:
    """Compile a lowered graph.

    Returns:
        The executable; for each function that the generic schedule left alone, the reason; and the calls in order.

    Raises:
        BackendError: if TVM fails to compile it.
    """
    try:
        with target.tvm, tvm.transform.PassContext(opt_level=3):
            module = _optimize(lowered.module)
            module, unscheduled = backend.schedule(module, target)
            module = transform.RewriteDataflowReshape()(module)  # before the table: such a reshape is no call
            calls = call_table(module, lowered.calls)
            module = _to_bytecode_form(module)
            return backend.build(module, target), unscheduled, calls
    except BackendError:
        raise
    except Exception as error:  # TVM raises its own errors, and RuntimeError from LLVM
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise BackendError(
            f"TVM could not compile the graph: {type(error).__name__}: {lines[-1] if lines else ''}"
        ) from error


def _optimize(module: tvm.IRModule) -> tvm.IRModule:
    annotated = tvm.transform.Sequential(
        [
            relax.backend.DispatchSampling(),
            relax.backend.DispatchSortScan(),
            transform.LegalizeOps(legalize_map()),
            transform.LegalizeOps(legalize_map()),  # a legalisation may itself be written in Relax ops
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
        ]
    )(module)
    fusion = [transform.FuseOps(), transform.FuseTIR(), transform.DeadCodeElimination()]
    return tvm.transform.Sequential(fusion)(keep_producers_out(annotated))


def _to_bytecode_form(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )(module)
