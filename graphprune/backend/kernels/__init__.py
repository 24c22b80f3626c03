"""CPU kernels in TensorIR: which one computes a layer, with its weights packed.

The functions here are all that lowering needs; each returns a ``Kernel`` or raises ``BackendError`` saying why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphprune.backend.kernels.attention import attention
from graphprune.backend.kernels.batched_matmul import batched_matmul
from graphprune.backend.kernels.contract import (
    ACTIVATIONS,
    DEFAULT_CHOICE,
    NOT_TILED,
    Choice,
    Convolution,
    ConvShape,
    Epilogue,
    Kernel,
    Tiled,
)
from graphprune.backend.kernels.dense_conv2d import dense_conv2d
from graphprune.backend.kernels.dense_linear import dense_linear
from graphprune.backend.kernels.dense_small_conv2d import dense_small_conv2d, suits_small_planes
from graphprune.backend.kernels.depthwise_conv2d import depthwise_conv2d
from graphprune.backend.kernels.expanded_depthwise import expanded_depthwise
from graphprune.backend.kernels.geometry import conv_geometry
from graphprune.backend.kernels.sparse_conv2d import plane_tile, sparse_conv2d
from graphprune.backend.kernels.sparse_linear import sparse_linear
from graphprune.backend.kernels.sparse_vector_linear import sparse_vector_linear
from graphprune.backend.kernels.winograd_conv2d import winograd_conv2d
from graphprune.backend.kernels.winograd_plan import choose_winograd
from graphprune.backend.target import CompileTarget
from graphprune.errors import BackendError

__all__ = [
    "ACTIVATIONS",
    "Choice",
    "ConvShape",
    "Convolution",
    "Epilogue",
    "Kernel",
    "Tiled",
    "attention",
    "conv2d",
    "expanded_depthwise",
    "linear",
    "matmul",
]


def linear(
    weight: np.ndarray,
    bias: np.ndarray | None,
    x_shape: Sequence[int],
    epilogue: Epilogue,
    target: CompileTarget,
    *,
    sparse: bool,
    choice: Choice | None = None,
    tiled: Tiled | None = None,
) -> Kernel:
    """Return a kernel of ``activation(x @ weight.T + bias + residual)``.

    ``weight`` is float32 [out, in], ``bias`` [out] or None, ``x_shape`` [..., in] of fixed sizes. ``sparse`` asks for
    the kernel that skips zeros; ``choice`` overrides its cost model. Of that kernel, on more than one token, operands
    may be ``tiled``.
    """
    choice, tiled = choice or DEFAULT_CHOICE, tiled or NOT_TILED
    _check_float32(weight, bias)
    _check_fixed(x_shape)
    if weight.ndim != 2 or not x_shape or x_shape[-1] != weight.shape[1]:
        raise BackendError(f"linear with weight {weight.shape} does not fit input {tuple(x_shape)}", axis=-1)
    many = prod(x_shape[:-1]) > 1
    if tiled != NOT_TILED and not (sparse and many):
        raise BackendError("only the sparse kernel on several tokens takes tiles of [features, tokens]")
    if not sparse:
        return dense_linear(weight, bias, x_shape, epilogue, target, choice)
    if not many:
        return sparse_vector_linear(weight, bias, x_shape, epilogue, target)
    return sparse_linear(weight, bias, x_shape, epilogue, target, choice, tiled)


def conv2d(
    weight: np.ndarray,
    bias: np.ndarray | None,
    shape: ConvShape,
    epilogue: Epilogue,
    target: CompileTarget,
    *,
    sparse: bool,
    choice: Choice | None = None,
    tiled: Tiled | None = None,
) -> Kernel:
    """Return a kernel of ``activation(conv2d(x, weight) + bias + residual)`` on NCHW input.

    ``weight`` is float32 [out, in / groups, kh, kw], ``bias`` [out] or None. ``sparse`` asks for the kernel that skips
    zeros, which a depthwise convolution lacks; ``choice`` overrides the kernel's cost model. Of that kernel operands
    may be ``tiled`` as ``plane_tile`` says.
    """
    choice, tiled = choice or DEFAULT_CHOICE, tiled or NOT_TILED
    groups = shape.groups
    _check_float32(weight, bias)
    _check_fixed(shape.x_shape)
    geometry = conv_geometry(weight.shape, shape, target.lanes)
    if sparse and groups > 1 and weight.shape[1] == 1:
        raise BackendError(
            "there is no sparse kernel for a depthwise convolution: its rows are too short to walk",
            hint="compile this layer dense",
        )
    if tiled != NOT_TILED:
        possible = plane_tile(geometry, groups, target, choice.vectors) if sparse else None
        if possible is None or (tiled.x and not possible.takes):
            raise BackendError("only sparse 1x1 convolutions take and give tiles of [channels, positions]")
    if sparse:
        return sparse_conv2d(weight, bias, geometry, epilogue, target, choice, tiled)
    if groups > 1 and weight.shape[1] == 1:
        return depthwise_conv2d(weight, bias, geometry, epilogue, target, choice)
    # A choice that says something of another kernel asks for that.
    points = 0 if choice.winograd is None and choice != DEFAULT_CHOICE else choice.winograd
    plan = choose_winograd(geometry, weight.shape[0], target, points) if groups == 1 else None
    if plan is not None:
        return winograd_conv2d(weight, bias, plan, epilogue, target)
    if points:
        raise BackendError(f"Winograd's algorithm with {points} points is switched off or not for this convolution")
    small = (
        suits_small_planes(geometry, weight.shape[0], target) if choice.small_planes is None else choice.small_planes
    )
    if groups == 1 and small:
        return dense_small_conv2d(weight, bias, geometry, epilogue, target, choice)
    return dense_conv2d(weight, bias, geometry, groups, epilogue, target, choice)


def matmul(
    a_shape: Sequence[int], b_shape: Sequence[int], target: CompileTarget, *, transpose_b: bool = False
) -> Kernel:
    """Return a kernel of ``a @ b`` for float32 a [..., m, k] and b [..., k, n] ([..., n, k] with ``transpose_b``)."""
    _check_fixed(a_shape)
    _check_fixed(b_shape)
    return batched_matmul(a_shape, b_shape, target, transpose_b)


def _check_float32(weight: np.ndarray, bias: np.ndarray | None) -> None:
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.dtype != np.float32:
            raise BackendError(f"kernels compute in float32, the {name} is {array.dtype}", hint="convert the model")


def _check_fixed(shape: Sequence[int]) -> None:
    if not all(isinstance(size, (int, np.integer)) and size > 0 for size in shape):
        raise BackendError(
            f"kernels are compiled for fixed, positive sizes, got {tuple(shape)}", hint="compile without dynamic shapes"
        )
