"""Brings a model's configuration object up to date, where one set of numbers describes the smaller model.

Models of the transformers library are built from a configuration and saved with it. If the same class, built from the
configuration with other numbers, has the shapes of the pruned model and computes the same, these numbers are written;
``from_pretrained`` then needs no plan. Otherwise (layers that differ in width, scales derived from a size) the
configuration stays that of the original model, which is what ``load_pruned`` starts from.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphprune.eager.attributes import spots
from graphprune.eager.evidence import Evidence

_MOST_CANDIDATES = 4
Check = Callable[[nn.Module], bool]
Field = tuple[str, ...]


@dataclass(frozen=True)
class _Move:
    """One field of a configuration with a value it may have to get."""

    field: tuple[str | int, ...]
    value: int


def configuration_of(model: nn.Module) -> Any:
    """Return the configuration that the model's class is built from and saved with, or None."""
    config = getattr(model, "config", None)
    is_saved_with_it = callable(getattr(model, "save_pretrained", None)) and callable(getattr(config, "to_dict", None))
    return config if is_saved_with_it else None


def configurations(model: nn.Module) -> list[object]:
    """Return the model's configuration and those nested in it."""
    config = configuration_of(model)
    return [] if config is None else [part for _, part in _nested(config)]


def update_configuration(model: nn.Module, evidence: Evidence, computes_the_same: Check) -> bool:
    """Write new numbers into the model's configuration if they describe the pruned model; say whether that is so.

    Args:
        model: pruned already.
        evidence: of how sizes change.
        computes_the_same: whether a model gives the results of the pruned one on the example inputs.
    """
    config = configuration_of(model)
    if config is None:
        return False
    with torch.random.fork_rng(devices=[]):
        found = _climb(model, config, evidence)
        if found is None or not _builds_an_equal_model(model, found, computes_the_same):
            return False
    before = [(vars(part), dict(vars(part))) for _, part in _nested(config)]
    for (_, part), (_, new) in zip(_nested(config), _nested(found)):
        vars(part).update({name: vars(new)[name] for name, v in vars(part).items() if _is_number(v) or _are_numbers(v)})
    if computes_the_same(model):
        return True
    for state, saved in before:
        state.update(saved)
    return False


def _climb(model: nn.Module, config: Any, evidence: Evidence) -> Any:
    """Return a copy of ``config`` with numbers from which a model of the same shapes is built, or None."""
    moves = list(_moves(config, evidence))
    best, score = config, _likeness(model, config)
    while score < 1:
        trials = ((_with(best, moves_), moves_) for n in (1, 2) for moves_ in itertools.combinations(moves, n))
        better = next((trial for trial, _ in trials if _likeness(model, trial) > score), None)
        if better is None:
            return None
        best, score = better, _likeness(model, better)
    return None if best is config else best


def _moves(config: Any, evidence: Evidence) -> Iterator[_Move]:
    changes = evidence.changes.get("", {})
    for path, part in _nested(config):
        for name, value in vars(part).items():
            items = [((), value)] if _is_number(value) else []
            items = [((i,), item) for i, item in enumerate(value)] if _are_numbers(value) else items
            for index, item in items:
                ranked = sorted(((w, new) for (old, new), w in changes.items() if old == item != new), reverse=True)
                for _, new in ranked[:_MOST_CANDIDATES]:
                    yield _Move((*path, name, *index), new)


def _with(config: Any, moves: tuple[_Move, ...]) -> Any:
    result = copy.deepcopy(config)
    for move in moves:
        *path, last = move.field
        owner: Any = result
        for name in path:
            owner = owner[name] if isinstance(name, int) else vars(owner)[name]
        if isinstance(last, int):
            owner[last] = move.value
        else:
            vars(owner)[last] = move.value
    return result


def _likeness(model: nn.Module, config: Any) -> float:
    """Return which share of tensors and size attributes a model built from ``config`` has in common with ``model``."""
    try:
        with torch.device("meta"):
            built = type(model)(config)
    except Exception:  # whatever the model's code makes of numbers that do not go together
        return -1.0
    mine, theirs = _sizes(model), _sizes(built)
    return sum(theirs.get(name) == size for name, size in mine.items()) / max(1, len(mine))


def _sizes(model: nn.Module) -> dict[str, Any]:
    sizes: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return sizes | {f"attribute {spot}": spot.value for spot in spots(model)}


def _builds_an_equal_model(model: nn.Module, config: Any, computes_the_same: Check) -> bool:
    first = next(model.parameters(), None)
    if first is None or first.is_meta:
        return False
    fresh = type(model)(copy.deepcopy(config)).to(device=first.device, dtype=first.dtype)
    fresh.load_state_dict(model.state_dict())
    return computes_the_same(fresh.eval())


def _nested(config: Any, path: Field = ()) -> Iterator[tuple[Field, Any]]:
    yield path, config
    for name, value in vars(config).items():
        if callable(getattr(value, "to_dict", None)) and hasattr(value, "__dict__"):
            yield from _nested(value, (*path, name))


def _is_number(value: Any) -> bool:
    return type(value) is int and value > 1


def _are_numbers(value: Any) -> bool:
    return type(value) is list and all(type(item) is int for item in value)
