"""A plan: what is removed, as plain data that prints, diffs, saves and loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from graphprune.bars import bar
from graphprune.errors import GraphPruneError, MaskError
from graphprune.whole_files import written_whole

FORMAT_VERSION = 3
"""Version 1 had no uneven choices, version 2 no layers; plans are written as the oldest version that can hold them."""


@dataclass(frozen=True, eq=False)
class DimensionChoice:
    """What a plan does to one dimension.

    Attributes:
        name: the dimension's name, see :class:`graphprune.units.dimensions.Dimension`.
        size: number of units before.
        kind: the dimension's kind.
        keep: sorted positions of the kept units; for an uneven choice ``[blocks, kept]``, a sorted row for each block.
        requested: number of units the pass set out to remove before ties and limits changed it.
        members: parameter axes it touches, ``path:axis``.
        title: the dimension's name for people.
        outer: for an uneven choice the name of the dimension whose elements are the blocks, else "".
    """

    name: str
    size: int
    kind: str
    keep: NDArray[np.int64]
    requested: int
    members: tuple[str, ...]
    title: str = ""
    outer: str = ""

    @property
    def kept(self) -> int:
        """Number of units kept, in each block if they differ."""
        return self.keep.shape[-1]

    @property
    def removed(self) -> int:
        """Number of units removed, in each block if they differ."""
        return self.size - self.kept


@dataclass(frozen=True)
class RemovedLayer:
    """A layer that a plan leaves out: a section of the graph, whose entry takes the place of its exit.

    Attributes:
        title: name for people.
        module: path of the module it belongs to.
        entry: name of the node before it.
        exit: name of its last node.
    """

    title: str
    module: str
    entry: str
    exit: str


@dataclass(frozen=True, eq=False)
class Plan:
    """Which units of which dimensions, and which single weights, are kept, or which layers are left out.

    Attributes:
        fingerprint: of the graph the plan is for, see :func:`graphprune.fingerprint.fingerprint`.
        choices: one for each dimension that loses units.
        weight_masks: parameter path -> boolean tensor of its (original) shape, True where a weight is kept.
        cost: totals before and after: "parameters" and "macs", each (before, after).
        layers: those left out, in graph order; a plan with layers has neither choices nor weight masks.
        notes: remarks for people: renormalised statistics, constants that keep their old values.
        explainer: ``Analysis.explain`` of the graph the plan was made on; None after loading.
    """

    fingerprint: str
    choices: tuple[DimensionChoice, ...] = ()
    weight_masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    cost: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layers: tuple[RemovedLayer, ...] = ()
    explainer: Callable[[str, int], str] | None = field(default=None, compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.fingerprint == other.fingerprint and not self.diff(other)

    __hash__ = None  # type: ignore[assignment]  # plans hold arrays

    def __str__(self) -> str:
        lines = [f"Plan for graph {self.fingerprint[:12]}"]
        for name, (before, after) in self.cost.items():
            share = after / before if before else 1.0
            lines.append(f"  {bar(after, before)} {name}: {before:,} -> {after:,} ({share:.1%})")
        width = max((len(choice.title or choice.name) for choice in self.choices), default=0)
        for choice in self.choices:
            name = f"{bar(choice.kept, choice.size)} {choice.title or choice.name:<{width}}"
            size = f"{choice.size:>5} -> {choice.kept:>5}"
            asked = "" if choice.requested == choice.removed else f" (requested {choice.requested})"
            lines.append(
                f"  {name}  {choice.kind:<10}  {size}"
                f"  removes {choice.removed}{asked}, {len(choice.members)} parameter axes{_blocks(choice)}"
            )
        for path, mask in self.weight_masks.items():
            lines.append(f"  {path}: {1 - mask.float().mean().item():.1%} of weights zeroed")
        lines += [f"  {layer.title}: left out" for layer in self.layers]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def choice(self, name: str) -> DimensionChoice | None:
        """Return the choice for the dimension called ``name``, or None if the plan leaves it alone."""
        return next((choice for choice in self.choices if choice.name == name), None)

    def diff(self, other: Plan) -> str:
        """Return the differences to ``other`` as text, a line for each dimension, weight mask or layer that differs."""
        lines: list[str] = []
        mine, theirs = ({c.name: c for c in plan.choices} for plan in (self, other))
        for name in dict.fromkeys([*mine, *theirs]):
            a, b = mine.get(name), theirs.get(name)
            if a is None or b is None or a.outer != b.outer or not np.array_equal(a.keep, b.keep):
                lines.append(f"{name}: keeps {_count(a)} here, {_count(b)} there")
        for path in dict.fromkeys([*self.weight_masks, *other.weight_masks]):
            first, second = self.weight_masks.get(path), other.weight_masks.get(path)
            if first is None or second is None or not torch.equal(first, second):
                lines.append(f"{path}: weight masks differ")
        for layer in dict.fromkeys([*self.layers, *other.layers]):
            if not (layer in self.layers and layer in other.layers):
                lines.append(f"{layer.title}: left out {'here' if layer in self.layers else 'there'} only")
        return "\n".join(lines)

    def explain(self, parameter: str, axis: int) -> str:
        """Say what goes with an axis of a parameter, or why it cannot go: a chain of ops with source lines.

        Raises:
            GraphPruneError: if the plan was loaded from disk and has no graph; use ``Analysis.explain`` then.
        """
        if self.explainer is None:
            raise GraphPruneError(
                "this plan is not attached to a graph", hint="use graphprune.inspect(model, inputs).explain(...)"
            )
        return self.explainer(parameter, axis)

    def apply_(
        self,
        model: nn.Module,
        example_inputs: tuple[Any, ...] = (),
        example_kwargs: Mapping[str, Any] | None = None,
        dynamic_shapes: Any = None,
    ) -> nn.Module:
        """Apply the plan to an ordinary module in place, and return it: smaller layers, the code as it was.

        Parameters and buffers are sliced (tied ones stay tied), integer attributes that spell sizes are corrected
        (``out_channels``, ``num_heads``, ``normalized_shape``, whatever they are called), and the module is traced
        again and compared with the shrunk graph: shapes, constants, and results on the example inputs to 1e-5. Sliced
        parameters are new objects, so make optimisers afterwards; hooks on modules stay, those on sliced tensors do
        not. The configuration of a transformers model gets the new sizes where one configuration describes them.
        A layer that is left out stays as a module without parameters that returns what it is given, so that the names
        of all others remain.

        >>> plan = graphprune.plan(model, PruneChannels(ratio=0.5), (x,))
        >>> plan.apply_(model, (x,))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        Args:
            model: the model that the plan was made for, not yet changed.
            example_inputs, example_kwargs, dynamic_shapes: those that the plan was made with.

        Raises:
            HardCodedSizeError: if the model's code spells a size that must change, with its line; or if the plan
                needs nodes for which the code has no place. ``model`` is then exactly as before.
            MaskError: if the plan was made for another model, other inputs, or a graph that a pass had changed.
        """
        from graphprune.eager.apply import apply_plan

        return apply_plan(self, model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes)

    # ------------------------------------------------------------------------------------------------ on disk

    def save(self, path: str | Path) -> None:
        """Write the plan to ``path``: one safetensors file with JSON in its header, written whole or not at all."""
        path = Path(path)
        tensors = {f"keep/{choice.name}": torch.from_numpy(choice.keep) for choice in self.choices}
        tensors |= {f"mask/{name}": mask.contiguous() for name, mask in self.weight_masks.items()}
        header = {
            "format_version": 3 if self.layers else 2 if any(choice.outer for choice in self.choices) else 1,
            "fingerprint": self.fingerprint,
            "choices": [_header_entry(choice) for choice in self.choices],
            "cost": dict(self.cost),
            "notes": self.notes,
            **({"layers": [asdict(layer) for layer in self.layers]} if self.layers else {}),
        }
        with written_whole(path) as file:
            save_file(tensors, file, metadata={"graphprune.plan": json.dumps(header)})

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan written by :meth:`save`.

        Raises:
            MaskError: if the file is missing, is no plan, or is of another version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["graphprune.plan"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            version = header["format_version"]
            plan = _from_header(header, tensors) if version in range(1, FORMAT_VERSION + 1) else None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise MaskError(f"{path} is not a graphprune plan: {error}", hint="write plans with Plan.save") from error
        if plan is None:
            raise MaskError(f"{path} has plan format {version}, this version reads 1 to {FORMAT_VERSION}")
        return plan


def _header_entry(choice: DimensionChoice) -> dict[str, Any]:
    names = ("name", "size", "title", "kind", "requested", "members", *(("outer",) if choice.outer else ()))
    return {name: getattr(choice, name) for name in names}


def _from_header(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Plan:
    choices = tuple(
        DimensionChoice(
            name=entry["name"],
            size=entry["size"],
            kind=entry["kind"],
            keep=tensors[f"keep/{entry['name']}"].numpy(),
            requested=entry["requested"],
            members=tuple(entry["members"]),
            title=entry.get("title", ""),
            outer=entry.get("outer", ""),
        )
        for entry in header["choices"]
    )
    return Plan(
        fingerprint=header["fingerprint"],
        choices=choices,
        weight_masks={n.removeprefix("mask/"): t for n, t in tensors.items() if n.startswith("mask/")},
        cost={name: (before, after) for name, (before, after) in header["cost"].items()},
        notes=tuple(header["notes"]),
        layers=tuple(RemovedLayer(**entry) for entry in header.get("layers", ())),
    )


def _count(choice: DimensionChoice | None) -> str:
    if choice is None:
        return "everything"
    return f"{choice.kept} of {choice.size}" + (f" (by {choice.outer})" if choice.outer else "")


def _blocks(choice: DimensionChoice) -> str:
    return f", each of {len(choice.keep)} {choice.outer} its own" if choice.outer else ""
