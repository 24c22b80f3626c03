"""What a CPU kernel generator returns, and what it can fuse after the product."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tvm.tirx import PrimFunc

from graphprune.backend.kernels.tiling import Tile
from graphprune.errors import BackendError

ACTIVATIONS = ("none", "relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh")


@dataclass(frozen=True)
class Epilogue:
    """What follows a product before its result is stored: ``activation(product + bias + residual)``.

    Attributes:
        bias: whether a bias of one value per output channel or feature is added.
        residual: whether a tensor of the output's shape is added; the kernel takes it as its second buffer.
        activation: one of ``ACTIVATIONS``; "gelu" is the exact (erf) form.
    """

    bias: bool = False
    residual: bool = False
    activation: str = "none"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BackendError(
                f"no kernel fuses the activation {self.activation!r}", hint=f"one of {', '.join(ACTIVATIONS)}"
            )


@dataclass(frozen=True)
class ConvShape:
    """What a convolution is besides its weight: shape of the NCHW input, (vertical, horizontal) pairs, and groups."""

    x_shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Convolution:
    """A convolution with its constants and what follows it.

    Attributes:
        weight: float32 [out, in / groups, kh, kw].
        bias: float32 [out], or None.
        shape: input, stride, padding, dilation and groups.
        epilogue: what is fused after it.
    """

    weight: np.ndarray = field(repr=False)
    bias: np.ndarray | None = field(repr=False)
    shape: ConvShape
    epilogue: Epilogue


@dataclass(frozen=True)
class Choice:
    """How a kernel is to compute its layer; what is None is left to the kernel's cost model.

    Attributes:
        vectors: most vectors of sums that a tile or register block holds.
        block_floats: floats of the operand that one reduction block reads again and again, to stay in a cache.
        gathers: whether a tile's input is copied together before it is read.
        small_planes: whether a dense convolution takes the kernel for small planes.
        winograd: points along each axis at which Winograd's algorithm computes a dense convolution; 0 for another way.
    """

    vectors: int | None = None
    block_floats: int | None = None
    gathers: bool | None = None
    small_planes: bool | None = None
    winograd: int | None = None

    def __str__(self) -> str:
        """Return what is chosen, for people."""
        chosen = [f"{name} {value}" for name, value in vars(self).items() if value is not None]
        return ", ".join(chosen) or "default"


DEFAULT_CHOICE = Choice()


@dataclass(frozen=True)
class Tiled:
    """Which operands of a sparse layer are in tiles.

    Tiles of [features, tokens] for a linear layer on many tokens, see ``token_tiles``; of [channels, positions] for a
    1x1 convolution, see ``plane_tiles``.

    Attributes:
        x: the input.
        residual: the residual, if there is one; that of a linear layer is always if the output is.
        out: the output.
    """

    x: bool = False
    residual: bool = False
    out: bool = False

    def __str__(self) -> str:
        """Return which form is changed into which, for people."""
        forms = {True: "tiles", False: "tokens"}
        return f"{forms[self.x]} to {forms[self.out]}"


NOT_TILED = Tiled()


@dataclass(frozen=True)
class PlaneTile:
    """The tile of [channels, positions] in which a sparse convolution's result and residual may be.

    Attributes:
        tile: the tile.
        takes: whether its input may be in such tiles, too.
    """

    tile: Tile
    takes: bool


@dataclass(frozen=True)
class Kernel:
    """A TensorIR function with the constants it reads.

    Attributes:
        name: what the kernel is, for reports and symbol names, e.g. "sparse_conv2d".
        prim_func: its buffers are x, the residual if the epilogue has one, the constants in order, and the output.
        constants: packed weights, indices and bias, as C-contiguous arrays.
        output_shape: shape of the output buffer.
        output_dtype: dtype of the output buffer.
        note: the choices made, for people.
        tiled: which operands are in tiles.
    """

    name: str
    prim_func: PrimFunc
    constants: tuple[np.ndarray, ...] = field(repr=False)
    output_shape: tuple[int, ...]
    output_dtype: str = "float32"
    note: str = ""
    tiled: Tiled = NOT_TILED
