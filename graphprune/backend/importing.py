"""Guards around TVM's importer: its failures name the node, and what it makes must have the node's shape and dtype.

The importer ignores some arguments and guesses some dtypes, so a value that does not fit the graph's own record of it
is an error here, at compile time, rather than a wrong result later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from graphprune.errors import BackendError, GraphPruneError

Converter = Callable[[fx.Node, Any], Any]
HeldShape = Callable[[fx.Node], Sequence[Any]]

_HINT = "write the model with other ops, or compile the part before and after it"


def guarded(converters: Mapping[str, Converter], held_shape: HeldShape) -> dict[str, Converter]:
    """Return a converter for every op that ``converters`` or TVM's importer knows, each with the checks around it.

    A converter that returns ``NotImplemented`` leaves the node to the importer. ``held_shape`` tells what shape a
    node's value has to have.
    """
    names = ExportedProgramImporter().create_convert_map().keys() | converters.keys()
    return {name: _guard(name, converters.get(name), held_shape) for name in names if isinstance(name, str)}


def _guard(name: str, converter: Converter | None, held_shape: HeldShape) -> Converter:
    def convert(node: fx.Node, importer: Any) -> Any:
        try:
            value = NotImplemented if converter is None else converter(node, importer)
            if value is NotImplemented:
                value = importer.create_convert_map()[name](node)
        except GraphPruneError:
            raise
        except Exception as error:  # the importer asserts and raises whatever Relax's type inference raises
            lines = str(error).strip().splitlines()
            problem = f"TVM could not import {name}: {type(error).__name__}: {lines[-1] if lines else ''}"
            raise BackendError(problem, node=node, hint=_HINT) from error
        _check(name, node, value, held_shape)
        return value

    return convert


def _check(name: str, node: fx.Node, value: Any, held_shape: HeldShape) -> None:
    expected = node.meta.get("val")
    actual = getattr(value, "ty", None) if isinstance(value, relax.Expr) else None
    if not isinstance(expected, torch.Tensor) or not isinstance(actual, relax.TensorType):
        return
    shape = held_shape(node)
    dtype = str(expected.dtype).removeprefix("torch.")
    if str(actual.dtype) != dtype or not _same_shape(actual.shape, shape):
        shown = None if actual.shape is None else [str(size) for size in actual.shape]
        raise BackendError(
            f"TVM's lowering of {name} gives {actual.dtype}{shown} where torch gives {dtype}{list(shape)}",
            node=node,
            hint=_HINT,
        )


def _same_shape(actual: Any, expected: Sequence[Any]) -> bool:
    if not isinstance(actual, relax.ShapeExpr):
        return True  # only known at run time
    sizes = [getattr(size, "value", size) for size in actual]
    fits = all(
        not isinstance(a, int) or not isinstance(e, int) or a == e for a, e in zip(sizes, expected, strict=False)
    )
    return len(sizes) == len(expected) and fits
