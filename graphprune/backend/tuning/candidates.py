"""What is worth measuring for a layer: lists of choices by kind of kernel, the cost model's own choice first."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.kernels.contract import DEFAULT_CHOICE, Choice

_LEAST_SPARSITY = 0.2  # below which no sparse kernel of any shape came near the dense one

_TILES = tuple(Choice(vectors=count) for count in (4, 6, 8, 12, 16))
_BLOCKS = tuple(Choice(block_floats=count) for count in (4096, 8192, 16384, 32768))
_ROW_CONVOLUTION = tuple(
    Choice(vectors=vectors, gathers=gathers, small_planes=False) for gathers in (True, False) for vectors in (2, 3, 4)
)
_SMALL_PLANES = tuple(
    Choice(vectors=vectors, block_floats=floats, small_planes=True)
    for vectors, floats in ((2, 4096), (3, 4096), (4, 8192))
)
_WINOGRAD = tuple(Choice(winograd=points) for points in (0, 4, 5, 6))

# kernel kind -> choices beside the default
CHOICES: dict[str, tuple[Choice, ...]] = {
    # Not other tiles of tokens, nor of positions for 1x1 convolutions: layers pass activations on in tiles, and those
    # of one network must be alike.
    "sparse linear": _BLOCKS,
    "sparse matrix-vector": (),
    "sparse 1x1 convolution": (*_BLOCKS, Choice(gathers=True), Choice(gathers=False)),
    "sparse convolution": (*_TILES, *_BLOCKS, Choice(gathers=True), Choice(vectors=8, block_floats=16384)),
    "dense linear": tuple(Choice(vectors=count) for count in (1, 2, 3, 4, 6)),
    "dense convolution": (*_WINOGRAD, *_ROW_CONVOLUTION, *_SMALL_PLANES),
    "grouped convolution": tuple(Choice(vectors=count) for count in (1, 2, 3, 4, 6)),
    "depthwise convolution": tuple(Choice(vectors=count) for count in (2, 4, 6, 10, 12)),
}


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer."""

    sparse: bool
    choice: Choice = DEFAULT_CHOICE

    def __str__(self) -> str:
        """Return format and choice, for people."""
        return f"{'sparse' if self.sparse else 'dense'} ({self.choice})"

    def as_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON data."""
        chosen = {name: value for name, value in vars(self.choice).items() if value is not None}
        return {"sparse": self.sparse, "choice": chosen}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Candidate:
        """Return the candidate that ``as_dict`` spelt; raises ``TypeError`` or ``KeyError`` for other data."""
        choice = Choice(**data["choice"])
        if not isinstance(data["sparse"], bool) or not all(
            isinstance(v, (int, type(None))) for v in vars(choice).values()
        ):
            raise TypeError(f"not a candidate: {data}")
        return cls(data["sparse"], choice)


def candidates(layer: FusedLayer, *, sparse: bool, fixed_format: bool = False) -> list[Candidate]:
    """Return what to measure for ``layer``, the untuned compiler's own way first.

    ``sparse`` is the format that it was marked with; ``fixed_format`` keeps to it.
    """
    formats = [sparse]
    switchable = _kernel_kind(layer, sparse=False) != "depthwise convolution"  # those have no sparse kernel
    if not fixed_format and switchable and (sparse or layer.density <= 1 - _LEAST_SPARSITY):
        formats.append(not sparse)
    return [
        Candidate(way, choice) for way in formats for choice in (DEFAULT_CHOICE, *CHOICES[_kernel_kind(layer, way)])
    ]


def _kernel_kind(layer: FusedLayer, sparse: bool) -> str:
    if layer.conv is None and sparse:
        return "sparse matrix-vector" if prod(layer.x_shape[:-1]) == 1 else "sparse linear"
    if layer.conv is None:
        return "dense linear"
    if sparse:
        return "sparse 1x1 convolution" if layer.weight.shape[2:] == (1, 1) else "sparse convolution"
    if layer.groups == 1:
        return "dense convolution"
    return "depthwise convolution" if layer.weight.shape[1] == 1 else "grouped convolution"
