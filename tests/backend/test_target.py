import pytest
from tvm.target import Target

from graphprune.backend.target import parse_target
from graphprune.errors import BackendError


@pytest.mark.parametrize(
    "target, lanes, registers",
    [
        ("llvm -mcpu=haswell", 8, 16),
        ({"kind": "llvm", "mcpu": "znver4"}, 16, 30),
        ("llvm -mcpu=nehalem", 4, 16),
        (Target({"kind": "llvm", "mcpu": "znver3"}), 8, 16),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72", 4, 30),
    ],
)
def test_vector_unit_follows_the_processor(target, lanes, registers):
    parsed = parse_target(target)
    assert (parsed.kind, parsed.lanes, parsed.registers) == ("llvm", lanes, registers)
    assert parsed.tvm.kind.name == "llvm"


def test_native_is_resolved_so_that_artifacts_say_what_they_need():
    parsed = parse_target("llvm -mcpu=native")
    assert parsed.spec["mcpu"] != "native"
    assert parse_target(parsed) is parsed
    assert parse_target(dict(parsed.spec)) == parsed


def test_cuda_gets_a_host():
    parsed = parse_target({"kind": "cuda", "arch": "sm_90"})
    assert parsed.kind == "cuda" and parsed.tvm.host is not None
    assert str(parsed) == "cuda -arch=sm_90"


@pytest.mark.parametrize(
    "target, message",
    [
        ("", "empty"),
        ("vulkan", "unknown target kind"),
        ("llvm native", "cannot read"),
        ("llvm -mcpu=z80", "does not know the processor"),
        ("llvm -colour=red", "rejects"),
        ({"kind": "cuda", "arch": "90"}, "not a CUDA architecture"),
        (3, "not int"),
    ],
)
def test_bad_targets_are_typed_errors(target, message):
    with pytest.raises(BackendError, match=message):
        parse_target(target)
