"""Attributes of modules that spell sizes: where they are, and what they should become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphprune.eager.evidence import Evidence

# Attributes of torch.nn modules that no forward reads, or that equal other sizes by chance: (tensor, axis) of the
# module whose size they are. The first tensor that the module has counts.
NAMED_AXES: dict[str, tuple[tuple[str, int], ...]] = {
    "out_features": (("weight", 0),),
    "in_features": (("weight", 1),),
    "in1_features": (("weight", 1),),
    "in2_features": (("weight", 2),),
    "num_embeddings": (("weight", 0),),
    "embedding_dim": (("weight", 1),),
    "num_features": (("weight", 0), ("running_mean", 0)),
    "num_channels": (("weight", 0),),
    "num_parameters": (("weight", 0),),
    "input_size": (("weight_ih_l0", 1), ("weight_ih", 1)),
    "hidden_size": (("weight_hh_l0", 1), ("weight_hh", 1)),
    "proj_size": (("weight_hr_l0", 0),),
    "kdim": (("k_proj_weight", 1), ("in_proj_weight", 1)),
    "vdim": (("v_proj_weight", 1), ("in_proj_weight", 1)),
}
# Numbers of positions, of rounds, of bits: never numbers of units.
NOT_SIZES = frozenset(
    "kernel_size stride padding dilation output_padding output_size scale_factor _reversed_padding_repeated_twice "
    "padding_idx num_layers dim start_dim end_dim training call_super_init".split()
)
_UNCHANGED = 1e-6


@dataclass(frozen=True)
class Spot:
    """One integer that a module holds: an attribute, or an element of an attribute that is a list or tuple.

    Attributes:
        path: of the module.
        owner: the module.
        name: of the attribute.
        index: position in the list or tuple, or None.
    """

    path: str
    owner: nn.Module
    name: str
    index: int | None = None

    @property
    def value(self) -> int:
        """The integer."""
        value = vars(self.owner)[self.name]
        return value if self.index is None else value[self.index]

    def write(self, value: int) -> None:
        """Replace the integer; a list or tuple is replaced by a new one."""
        if self.index is not None:
            whole = vars(self.owner)[self.name]
            items = [value if i == self.index else item for i, item in enumerate(whole)]
            self.owner.__dict__[self.name] = type(whole)(items)
        else:
            self.owner.__dict__[self.name] = value

    def __str__(self) -> str:
        return f"{self.path}.{self.name}" + ("" if self.index is None else f"[{self.index}]")


@dataclass
class Correction:
    """A spot with the values it may have to get, the most likely first.

    Attributes:
        spot: the integer.
        old: its value in the original model.
        candidates: the values to try; the first is written at once.
        certain: whether the first is known to be right.
    """

    spot: Spot
    old: int
    candidates: tuple[int, ...]
    certain: bool


def spots(model: nn.Module) -> Iterator[Spot]:
    """Yield every integer above 1 that a module of ``model`` holds under a name that may mean a size."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in NOT_SIZES:
                continue
            if _is_size(value):
                yield Spot(path, module, name)
            elif type(value) in (tuple, list, torch.Size):
                yield from (Spot(path, module, name, i) for i, item in enumerate(value) if _is_size(item))


def corrections(model: nn.Module, evidence: Evidence, shapes: dict[int, torch.Size]) -> list[Correction]:
    """Return the integers that may have to change, with candidates.

    Args:
        model: with its tensors sliced already.
        evidence: of how sizes change.
        shapes: the old shapes of tensors, by the identity of what took their place.
    """
    found = []
    for spot in spots(model):
        exact = _named_axis(spot, shapes)
        if exact is None:
            exact = _literal(spot, evidence)
        if exact is not None:
            found.append(Correction(spot, spot.value, (exact,), True))
            continue
        candidates = _votes(spot, evidence)
        if candidates != (spot.value,):
            found.append(Correction(spot, spot.value, candidates, False))
    return [c for c in found if c.candidates != (c.old,)]


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 1


def _named_axis(spot: Spot, shapes: dict[int, torch.Size]) -> int | None:
    """Return the new value of an attribute that is by its name the size of an axis of the module's own tensor."""
    if spot.index is not None:
        return None
    axes = _convolution_axes(spot) or NAMED_AXES.get(spot.name, ())
    for tensor_name, axis in axes:
        tensor = getattr(spot.owner, tensor_name, None)
        if not isinstance(tensor, torch.Tensor) or tensor.dim() <= axis:
            continue
        old = shapes.get(id(tensor), tensor.shape)[axis]
        return tensor.shape[axis] if old == spot.value else None
    return None


def _convolution_axes(spot: Spot) -> tuple[tuple[str, int], ...]:
    """Return the axis of a convolution's weight that counts its channels of input or output, if no groups divide it."""
    if spot.name not in ("in_channels", "out_channels"):
        return ()
    transposed = bool(getattr(spot.owner, "transposed", False))
    return (("weight", int((spot.name == "in_channels") != transposed)),)


def _literal(spot: Spot, evidence: Evidence) -> int | None:
    """Return the new value of an op's argument that has the attribute's name and value, if the module calls such."""
    changes = evidence.literals.get(spot.path, {}).get(spot.name, ())
    values = {new for old, new in changes if old == spot.value}
    return values.pop() if len(values) == 1 else None


def _votes(spot: Spot, evidence: Evidence) -> tuple[int, ...]:
    votes = {new: weight for (old, new), weight in evidence.changes.get(spot.path, {}).items() if old == spot.value}
    votes.setdefault(spot.value, _UNCHANGED)
    return tuple(sorted(votes, key=lambda new: -votes[new]))
