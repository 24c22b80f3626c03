"""What graphprune compiles for: a TVM target and the few machine facts that kernels choose their tiles by."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm.target import Target, codegen

from graphprune.errors import BackendError

_OPTION = re.compile(r"^-{1,2}(?P<key>[\w-]+)=(?P<value>.+)$")
_DEFAULT_CUDA_ARCH = "sm_80"
_OF_32 = 30  # of 32 registers; the other two LLVM fills with the next step's operands while a product goes on


@dataclass(frozen=True)
class CompileTarget:
    """A normalised compilation target.

    Attributes:
        spec: the target as TVM's dictionary, ``{"kind": "llvm", "mcpu": "znver3"}``; "native" is already resolved.
        kind: "llvm" or "cuda".
        lanes: float32 elements in one vector register (1 for CUDA, whose kernels think in threads).
        registers: vector registers that a kernel may count on (0 for CUDA).
        cores: threads that a kernel should find work for (1 for CUDA).
        winograd: whether kernels may compute convolutions by Winograd's algorithm, whose roundings differ.
        bextr: whether the processor takes a bit field out of a word by one fast instruction that LLVM has to be told
            to use, x86's "bextr".
    """

    spec: Mapping[str, Any]
    kind: str
    lanes: int
    registers: int
    cores: int
    winograd: bool = True
    bextr: bool = False

    @cached_property
    def tvm(self) -> Target:
        """The same target as a ``tvm.target.Target``."""
        return Target(dict(self.spec))

    def __str__(self) -> str:
        options = " ".join(f"-{key}={value}" for key, value in self.spec.items() if key not in ("kind", "host"))
        return f"{self.kind} {options}".strip()

    def __hash__(self) -> int:
        return hash(str(self))


def parse_target(target: str | Mapping[str, Any] | Target | CompileTarget = "llvm -mcpu=native") -> CompileTarget:
    """Return the normalised form of ``target``.

    Accepts TVM's dictionary, a ``tvm.target.Target``, or the string forms ``"llvm"`` (the baseline of this machine's
    architecture), ``"llvm -mcpu=native"``, ``"llvm -mcpu=skylake-avx512"``, ``"cuda -arch=sm_90"``.
    Raises ``BackendError`` for a kind, option or processor that TVM's build does not know.
    """
    if isinstance(target, CompileTarget):
        return target
    if isinstance(target, Target):
        target = {"kind": target.kind.name, **{key: target.attrs[key] for key in target.attrs}}
    if isinstance(target, str):
        spec = _spec_from_string(target)
    elif isinstance(target, Mapping):
        spec = dict(target)
    else:
        raise BackendError(
            f"a target is a string or a dictionary, not {type(target).__name__}",
            hint='write target="llvm -mcpu=native" or target={"kind": "cuda", "arch": "sm_90"}',
        )
    kind = spec.get("kind")
    if kind == "llvm":
        return _cpu_target(spec)
    if kind == "cuda":
        return _cuda_target(spec)
    raise BackendError(f"unknown target kind {kind!r}", hint='the kinds graphprune compiles for are "llvm" and "cuda"')


def _spec_from_string(text: str) -> dict[str, Any]:
    words = shlex.split(text)
    if not words:
        raise BackendError("the target is an empty string", hint='write target="llvm -mcpu=native"')
    spec: dict[str, Any] = {"kind": words[0]}
    for word in words[1:]:
        option = _OPTION.match(word)
        if option is None:
            raise BackendError(
                f"cannot read {word!r} in target {text!r}",
                hint='options are written "-key=value", as in "-mcpu=native"',
            )
        key, value = option["key"], option["value"]
        spec[key] = value.split(",") if key == "mattr" else value
    return spec


def _cpu_target(spec: dict[str, Any]) -> CompileTarget:
    if spec.get("mcpu") == "native":
        spec["mcpu"] = codegen.llvm_get_system_cpu()
    tvm_target = _make(spec)
    known = codegen.llvm_get_cpu_archlist(tvm_target)
    if "mcpu" in spec and spec["mcpu"] not in known:
        raise BackendError(
            f"LLVM does not know the processor {spec['mcpu']!r}",
            hint=f'write "native" for this machine, or one of: {", ".join(sorted(known)[:12])}, ...',
        )
    features = set(codegen.llvm_get_cpu_features(tvm_target))
    lanes, registers = _vector_unit(features)
    bextr = {"bmi", "fast-bextr"} <= features
    return CompileTarget(spec, "llvm", lanes, registers, os.cpu_count() or 1, bextr=bextr)


def _vector_unit(features: set[str]) -> tuple[int, int]:
    """Return (float32 lanes, registers to count on) of the widest vector unit among LLVM's ``features``."""
    if "avx512vl" in features:
        return 16, _OF_32
    if "avx2" in features or "avx" in features:
        return 8, 16
    if "neon" in features:
        return 4, _OF_32
    return 4, 16


def _cuda_target(spec: dict[str, Any]) -> CompileTarget:
    spec.setdefault("arch", _DEFAULT_CUDA_ARCH)
    if not re.fullmatch(r"sm_\d+[a-z]?", str(spec["arch"])):
        raise BackendError(f"{spec['arch']!r} is not a CUDA architecture", hint='write for example "sm_90"')
    spec.setdefault("host", {"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})
    _make(spec)
    return CompileTarget(spec, "cuda", lanes=1, registers=0, cores=1)


def _make(spec: dict[str, Any]) -> Target:
    try:
        return Target(spec)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendError(f"TVM rejects the target {spec}: {reason}", hint="check the option names") from error
