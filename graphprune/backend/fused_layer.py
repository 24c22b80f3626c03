"""One convolution or linear layer with its epilogue and constants: what a kernel is made for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import BackendError

if TYPE_CHECKING:
    from graphprune.backend import Backend
    from graphprune.backend.kernels import Choice, Convolution, ConvShape, Epilogue, Kernel, Tiled
    from graphprune.backend.target import CompileTarget


@dataclass(frozen=True)
class FusedLayer:
    """A layer ready to get a kernel.

    Attributes:
        weight: [out, in] of a linear layer, [out, in / groups, kh, kw] of a convolution.
        bias: [out] or None.
        x_shape: shape of the input.
        epilogue: what follows the product.
        conv: the rest of a convolution's shape; None for a linear layer.
    """

    weight: np.ndarray = field(repr=False)
    bias: np.ndarray | None = field(repr=False)
    x_shape: tuple[int, ...]
    epilogue: Epilogue
    conv: ConvShape | None = None

    @cached_property
    def density(self) -> float:
        """Fraction of the weight's entries that are not zero."""
        return float(np.count_nonzero(self.weight) / max(1, self.weight.size))

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a linear layer."""
        return 1 if self.conv is None else self.conv.groups

    def convolution(self) -> Convolution:
        """Return the layer as a convolution.

        Raises:
            BackendError: if it is a linear layer.
        """
        from graphprune.backend.kernels import Convolution

        if self.conv is None:
            raise BackendError("a linear layer is no convolution")
        return Convolution(self.weight, self.bias, self.conv, self.epilogue)

    def kernel(
        self,
        backend: Backend,
        target: CompileTarget,
        *,
        sparse: bool,
        choice: Choice | None = None,
        tiled: Tiled | None = None,
    ) -> Kernel:
        """Return the backend's kernel of this layer; ``choice`` overrides its cost model.

        ``tiled`` says which operands are in tiles; None stands for none.

        Raises:
            BackendError: if there is none.
        """
        options = {"sparse": sparse, "choice": choice, "tiled": tiled}
        if self.conv is None:
            return backend.linear(self.weight, self.bias, self.x_shape, self.epilogue, target, **options)
        return backend.conv2d(self.weight, self.bias, self.conv, self.epilogue, target, **options)
