"""Which ops have a rule: everything that torch.export can leave in a graph has one, or a pin with its reason."""

import torch

from graphprune.rules import rule_named, supported_ops

WITHOUT_TENSORS = {f"aten::sym_{name}" for name in ("is_contiguous", "numel", "size", "storage_offset", "stride")}
"""Core ops that return numbers, which have no axes."""

NEVER_TRACED = """
__iand__ __ior__ __ixor__ _sobol_engine_ff_ _sobol_engine_initialize_state_ _sobol_engine_scramble_ fill_diagonal_
_test_ambiguous_defaults _test_autograd_multiple_dispatch _test_check_tensor _test_string_default get_gradients
requires_grad_
""".split()
"""Composite ops in place without a functional twin of that name, and torch's own test ops."""


def schemas():
    """Yield (name, overload) of every aten op."""
    for name in sorted({schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")}):
        packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
        for overload in packet.overloads() if packet is not None else []:
            yield name, getattr(packet, overload)


def functional(name):
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def test_every_core_op_has_a_rule_or_a_pin():
    core = {functional(name) for name, op in schemas() if torch.Tag.core in op.tags}
    assert len(core) > 150
    assert {name for name in core if rule_named(name) is None} == WITHOUT_TENSORS


def test_every_composite_op_that_export_keeps_has_a_rule_or_a_pin():
    """torch.export's training graphs keep composite ops whole, whichever the model's code calls."""

    def is_composite(op):
        try:
            return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")
        except RuntimeError:  # TorchScript's own ops
            return False

    composite = {
        name
        for name, op in schemas()
        if is_composite(op) and any("Tensor" in str(result.type) for result in op._schema.returns)
    }
    assert len(composite) > 350
    missing = {name.removeprefix("aten::") for name in composite if rule_named(functional(name)) is None}
    assert missing == set(NEVER_TRACED)


def test_pins_say_why():
    pinned = [rule for rule in supported_ops() if rule.pin_reason]
    assert len(pinned) > 100
    assert all(rule.family == "pinned" and rule.pin_reason in rule.description for rule in pinned)
    assert not [rule.op for rule in supported_ops() if rule.family == "pinned" and not rule.pin_reason]


def test_ops_that_copy_share_the_rule_of_their_twin():
    assert rule_named("aten::view_copy") is rule_named("aten::view")
    assert rule_named("aten::no_such_copy") is None
