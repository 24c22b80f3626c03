"""Which of TVM's passes have nothing to do in code for a CPU; they take a good part of the compile time."""

from __future__ import annotations

import tvm

# Shared memory, virtual threads, copies between memories and tensor cores: GPU matters.
_GPU_PASSES = (
    "s_tir.InjectPermutedLayout",
    "s_tir.InjectSoftwarePipeline",
    "s_tir.InjectVirtualThread",
    "s_tir.LowerAutoCopy",
    "s_tir.TransformMmaBufferLayout",
)
# Shrinks what a schedule left too large; our kernels allocate what they need.
_SCHEDULE_PASSES = ("s_tir.CompactBufferAllocation",)


def cpu_passes(*, kernels_only: bool = False) -> tvm.transform.PassContext:
    """Return a context that compiles for a CPU; with ``kernels_only`` the module holds our own kernels alone."""
    disabled = _GPU_PASSES + (_SCHEDULE_PASSES if kernels_only else ())
    return tvm.transform.PassContext(opt_level=3, disabled_pass=list(disabled))
