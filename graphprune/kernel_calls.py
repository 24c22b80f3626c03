"""Which function of a compiled model computes which layer: plain data, made by lowering, read by profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class KernelCall:
    """One call of a compiled function, in the order of the program.

    Attributes:
        function: the function's name in the compiled model; layers of the same shape may share one.
        layer: path of the layer's weight, else the graph node's name; the function's name for what TVM fused.
        kernel: name of our kernel, or "relax" for a function that TVM made and the generic schedule vectorised.
        shape: shape of the result.
        macs: multiply-accumulates with dense operands, or None where they are not counted.
        density: fraction of the weight's entries that are not zero, or None where there is no weight.
    """

    function: str
    layer: str
    kernel: str
    shape: tuple[int, ...]
    macs: int | None = None
    density: float | None = None

    @property
    def nonzero_macs(self) -> int | None:
        """The multiply-accumulates with weights that are not zero, or None."""
        return None if self.macs is None else round(self.macs * (1.0 if self.density is None else self.density))

    def as_dict(self) -> dict[str, Any]:
        """Return the call as JSON data."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KernelCall:
        """Return the call that :meth:`as_dict` described."""
        return cls(**{**data, "shape": tuple(data["shape"])})
