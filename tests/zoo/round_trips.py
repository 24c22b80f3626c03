"""``python -m tests.zoo.round_trips``: sends pruned models through every exit and compares what comes back.

Exits: ``torch.export`` (with fixed and with open batch), ONNX with onnxruntime, ``torch.compile``, AOTInductor,
``graphprune.compile``, state dicts, copies and pickles, and pruning once more.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import fx
from torch.utils._pytree import tree_leaves

import graphprune
from graphprune.passes import PruneChannels
from tests.zoo.batch_size import open_batch, with_batch
from tests.zoo.check import relative_error
from tests.zoo.models import Example, make

MODELS = """
hf/bert hf/gpt2 hf/llama hf/t5 hf/vit hf/segformer hf/whisper_encoder torchvision/resnet18
torchvision/mobilenet_v3_small torchvision/shufflenet_v2_x1_0 timm/ghostnet_100 timm/convnextv2_atto torchvision/swin_t
""".split()


def pruned(name: str, *, dynamic_batch: bool = False) -> tuple[fx.GraphModule, Example]:
    """Return half of a zoo model with its inputs, of two rows."""
    example = with_batch(make(name), 2)
    shapes = open_batch(example) if dynamic_batch else None
    small = graphprune.prune(
        example.model, PruneChannels(ratio=0.5), example.args, example.kwargs, dynamic_shapes=shapes
    )
    return small, example


def through_export(small: fx.GraphModule, example: Example) -> float:
    """``torch.export``: save, load, run."""
    return relative_error(_call(_saved_and_loaded(small, example, None), example), _call(small, example))


def through_export_with_open_batch(small: fx.GraphModule, example: Example) -> float:
    """The same, loaded at another batch size; ``small`` was traced with an open batch."""
    loaded = _saved_and_loaded(small, example, open_batch(example))
    other = with_batch(example, 3)
    return relative_error(_call(loaded, other), _call(small, other))


def _saved_and_loaded(small: fx.GraphModule, example: Example, shapes: Any) -> Callable[..., Any]:
    program = torch.export.export(small, example.args, example.kwargs, dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return torch.export.load(buffer).module()


def through_onnx(small: fx.GraphModule, example: Example) -> float:
    """ONNX and onnxruntime; initialisers and inputs keep the names they have in the graph."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with torch.no_grad():  # where attention has a mask that is learned, torch decomposes it wrongly with gradients
            torch.onnx.export(small, example.args, str(path), kwargs=example.kwargs, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        placeholders = [node.name for node in small.graph.nodes if node.op == "placeholder" and node.users]
        assert names == placeholders, f"inputs are called {names}, in the graph {placeholders}"
        values = [value.numpy() for value in tree_leaves((example.args, example.kwargs))]
        feeds = dict(zip((n.name for n in small.graph.nodes if n.op == "placeholder"), values, strict=True))
        results = [torch.from_numpy(array) for array in session.run(None, {name: feeds[name] for name in names})]
    return relative_error(results, tree_leaves(_call(small, example)))


def through_compile(small: fx.GraphModule, example: Example) -> float:
    """``torch.compile`` with inductor where there is a C++ compiler, else with AOTAutograd alone."""
    backend = "inductor" if shutil.which("g++") else "aot_eager"
    torch._dynamo.reset()
    return relative_error(_call(torch.compile(small, backend=backend), example), _call(small, example))


def through_aot_inductor(small: fx.GraphModule, example: Example) -> float:
    """AOTInductor: a shared library, loaded and run."""
    program = torch.export.export(small, example.args, example.kwargs)
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/model.pt2")
        return relative_error(_call(torch._inductor.aoti_load_package(package), example), _call(small, example))


def through_tvm(small: fx.GraphModule, example: Example) -> float:
    """graphprune's own compiler."""
    fast = graphprune.compile(small)
    return relative_error(_call(fast, example), _call(small, example))


def through_files_and_copies(small: fx.GraphModule, example: Example) -> float:
    """Pickle, ``torch.save``, ``deepcopy``, and a state dict of safetensors loaded into a copy that was zeroed."""
    from safetensors.torch import load_model, save_model

    buffer = io.BytesIO()
    torch.save(small, buffer)
    buffer.seek(0)
    emptied = copy.deepcopy(small)
    for tensor in (*emptied.parameters(), *emptied.buffers()):
        tensor.data.zero_()
    with tempfile.TemporaryDirectory() as folder:
        save_model(small, f"{folder}/weights.safetensors")
        load_model(emptied, f"{folder}/weights.safetensors")
    results = [
        pickle.loads(pickle.dumps(small)),
        torch.load(buffer, weights_only=False),
        copy.deepcopy(small),
        emptied,
    ]
    expected = _call(small, example)
    return max(relative_error(_call(result, example), expected) for result in results)


def through_a_second_pruning(small: fx.GraphModule, example: Example) -> float:
    """Prune the pruned graph again, from itself and from its export, which must agree."""
    half_again = PruneChannels(ratio=0.5)
    direct = graphprune.prune(small, half_again)
    from_export = graphprune.prune(torch.export.export(small, example.args, example.kwargs), half_again)
    counts = [sum(p.numel() for p in gm.parameters()) for gm in (small, direct, from_export)]
    assert counts[2] == counts[1] < counts[0], f"parameters {counts[0]}, again {counts[1]}, from export {counts[2]}"
    return relative_error(_call(from_export, example), _call(direct, example))


def _call(run: Callable[..., Any], example: Example) -> Any:
    with torch.no_grad():
        return run(*example.args, **example.kwargs)


EXITS: dict[str, tuple[Callable[[fx.GraphModule, Example], float], float]] = {
    "export": (through_export, 1e-6),
    "open-batch": (through_export_with_open_batch, 1e-5),
    "onnx": (through_onnx, 1e-4),
    "compile": (through_compile, 1e-4),
    "aot-inductor": (through_aot_inductor, 1e-4),
    "tvm": (through_tvm, 1e-4),
    "files": (through_files_and_copies, 1e-6),
    "again": (through_a_second_pruning, 1e-5),
}
"""Name of an exit -> the function that takes a pruned model through it, and the largest relative error allowed."""


def _attempts(name: str, ways: list[str]) -> Iterator[str]:
    """Yield what became of ``name`` on each way; the model is pruned once for all, and once more with an open batch."""
    models: dict[bool, tuple[fx.GraphModule, Example]] = {}
    for way in ways:
        yield _attempt(name, way, models)


def _attempt(name: str, way: str, models: dict[bool, tuple[fx.GraphModule, Example]]) -> str:
    through, tolerance = EXITS[way]
    start = time.process_time()
    open_batch_wanted = way == "open-batch"
    try:
        if open_batch_wanted not in models:
            models[open_batch_wanted] = pruned(name, dynamic_batch=open_batch_wanted)
        error = through(*models[open_batch_wanted])
    except Exception as failure:
        first = next((line for line in str(failure).splitlines() if line.strip()), "")
        return f"FAILED {type(failure).__name__}: {first[:160]}"
    verdict = "" if error <= tolerance else "WRONG "
    return f"{verdict}{error:.0e} {time.process_time() - start:.0f} s"


def main() -> int:
    """Print a row for each model and a column for each exit; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.round_trips", description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS, help="names in the zoo")
    parser.add_argument("--exits", nargs="*", default=list(EXITS), choices=list(EXITS))
    parser.add_argument("--json", type=Path, help="also append each outcome to this file, one line each, as they come")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    table = Table(title="largest relative error, processor seconds", title_justify="left", show_edge=False)
    for column in ("model", *arguments.exits):
        table.add_column(column, overflow="fold")
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False)
    cells = []
    for name in arguments.models:
        row = []
        for way, verdict in zip(arguments.exits, _attempts(name, arguments.exits), strict=True):
            row.append(verdict)
            print(f"{name} {way}: {row[-1]}", file=sys.stderr, flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    file.write(json.dumps({"model": name, "exit": way, "outcome": verdict}) + "\n")
        table.add_row(name, *row)
        cells += row
    console.print(table)
    failed = sum(cell.startswith(("FAILED", "WRONG")) for cell in cells)
    console.print(f"{len(cells) - failed} of {len(cells)} round trips")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
