"""What crosses the boundary of a compiled model, as plain data, and the check of a call against it; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphprune.errors import BackendError
from graphprune.structure import Structure, collect, unflatten


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that crosses the boundary: its name for people, its shape (ints or names of symbols) and dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def check(self, shape: Sequence[int], dtype: str) -> None:
        """Compare with what was passed.

        Raises:
            BackendError: if rank, a size or the dtype differs.
        """
        got = f"{dtype}{list(shape)}"
        expected = f"{self.dtype}{list(self.shape)}"
        hint = "the kernels are compiled for exactly this shape and dtype; convert the input or compile again"
        if len(shape) != len(self.shape):
            raise BackendError(f"input {self.name!r}: expected {expected}, got {got}", hint=hint)
        for axis, (want, size) in enumerate(zip(self.shape, shape, strict=True)):
            if isinstance(want, int) and want != size:
                raise BackendError(f"input {self.name!r}: expected {expected}, got {got}", axis=axis, hint=hint)
        if dtype != self.dtype:
            raise BackendError(f"input {self.name!r}: expected {expected}, got {got}", hint=hint)


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a compiled model.

    Attributes:
        inputs, outputs: the tensors, in the order of the compiled function.
        input_structure: how the inputs nest in ``(args, kwargs)``.
        output_structure: how the outputs nest in the result.
        argument_names: names of the positional arguments, as far as known, so that they may be passed by keyword.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_structure: Structure
    output_structure: Structure
    argument_names: tuple[str, ...]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return the tensors of a call in the order of the compiled function.

        Raises:
            BackendError: if the arguments are not those the model was compiled with; the message says which.
        """
        positional = self.input_structure["tuple"][0]["tuple"]
        remaining = dict(kwargs)
        args = (
            *args,
            *(remaining.pop(name) for name in self.argument_names[len(args) : len(positional)] if name in remaining),
        )
        keywords = [key for key, _ in self.input_structure["tuple"][1]["dict"]]
        keyword_names = self.argument_names[len(positional) :]
        for name, value in zip(keyword_names, args[len(positional) :], strict=False):
            if name in keywords and name not in remaining:
                remaining[name] = value
                args = args[:-1]
        if len(args) != len(positional) or set(remaining) != set(keywords):
            raise BackendError(
                f"expected {self._describe_arguments()}, got {len(args)} positional arguments and keywords "
                f"{sorted(remaining)}",
                hint="call it as the model was called with its example inputs",
            )
        leaves: list[Any] = [None] * len(self.inputs)
        names = (*map(repr, self.argument_names), *range(len(self.argument_names), len(positional)))
        for name, part, value in zip(names, positional, args, strict=False):
            collect(part, value, leaves, f"argument {name}")
        for name, part in self.input_structure["tuple"][1]["dict"]:
            collect(part, remaining[name], leaves, f"argument {name!r}")
        return leaves

    def _describe_arguments(self) -> str:
        positional = self.input_structure["tuple"][0]["tuple"]
        keywords = [key for key, _ in self.input_structure["tuple"][1]["dict"]]
        names = ", ".join(self.argument_names[: len(positional)])
        return f"{len(positional)} positional arguments ({names}) and keywords {sorted(keywords)}"

    def build_result(self, outputs: Sequence[Any]) -> Any:
        """Return ``outputs`` nested as the model's result."""
        return unflatten(self.output_structure, outputs)

    def as_dict(self) -> dict[str, Any]:
        """Return the signature as JSON data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Signature:
        """Return the signature that :meth:`as_dict` described."""

        def specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(item["name"], tuple(item["shape"]), item["dtype"]) for item in items)

        return Signature(
            specs(data["inputs"]),
            specs(data["outputs"]),
            data["input_structure"],
            data["output_structure"],
            tuple(data["argument_names"]),
        )
