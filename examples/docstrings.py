"""A search task from what is installed anyway: find the body of a docstring, given its one-line summary."""

import importlib
import inspect
import random
import re
from dataclasses import dataclass

import torch

MODULES = """
numpy numpy.linalg numpy.fft numpy.random numpy.ma numpy.polynomial.polynomial
scipy.cluster.hierarchy scipy.fft scipy.integrate scipy.interpolate scipy.linalg scipy.ndimage scipy.optimize
scipy.signal scipy.sparse scipy.sparse.linalg scipy.spatial scipy.spatial.distance scipy.special scipy.stats
torch torch.linalg torch.nn torch.nn.functional torch.optim torch.special torch.distributions torch.utils.data
""".split()


@dataclass(frozen=True)
class Passage:
    """A docstring in two parts: the summary is the query, the body what it should find."""

    name: str
    summary: str
    body: str


def passages() -> list[Passage]:
    """Return the docstrings of all public functions and classes of `MODULES`, in a fixed random order."""
    found: dict[str, Passage] = {}
    # All imports first: importing one module can add names to another.
    modules = {name: importlib.import_module(name) for name in MODULES}
    for module_name, module in modules.items():
        for name, member in sorted(vars(module).items()):
            if name.startswith("_") or not callable(member):
                continue
            passage = _passage(f"{module_name}.{name}", inspect.getdoc(member) or "")
            if passage is not None:
                found.setdefault(passage.summary, passage)
    ordered = sorted(found.values(), key=lambda passage: passage.name)
    random.Random(0).shuffle(ordered)
    return ordered


def _passage(name: str, docstring: str) -> Passage | None:
    """Split a docstring at its first blank line; None if either part is too short to mean anything."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", docstring)]
    short_name = re.escape(name.rpartition(".")[2])
    # Signatures and the function's own name would give the answer away.
    paragraphs = [part for part in paragraphs if not re.match(rf"{short_name}\(|[\w.]+\(.*\)\s*(->|$)", part)]
    if len(paragraphs) < 2:
        return None
    summary = paragraphs[0]
    body = re.sub(rf"\b{short_name}\b", "it", " ".join(paragraphs[1:]))
    if not 20 <= len(summary) <= 300 or len(body) < 200:
        return None
    return Passage(name, summary, body)


def recall_and_mrr(queries: torch.Tensor, documents: torch.Tensor) -> tuple[float, float]:
    """Score unit vectors [N, d], where query i belongs to document i: recall at 1 and mean reciprocal rank."""
    similarity = queries @ documents.T
    rank = (similarity > similarity.diagonal()[:, None]).sum(1) + 1
    return (rank == 1).float().mean().item(), (1 / rank).mean().item()
