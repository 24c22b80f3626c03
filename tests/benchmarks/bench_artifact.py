"""Size, load time and peak memory of an exported ResNet-50, loaded in a process of its own that never imports torch.

    python tests/benchmarks/bench_artifact.py [--sparsity 0.9] [--json out.json]

Beside them: the size of torch's state dict of the same model, and how much of the library would be the dense weights.
Times are of one fresh process; memory is its largest resident set, with what the imports alone take shown apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MB = 1e6

CHILD = """
import json, sys, time

sys.modules["torch"] = None  # TVM's Python package imports torch where it can

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6

started = time.perf_counter()
import numpy as np
import tvm
from graphprune import runtime
imported, imports_mb = time.perf_counter(), peak_mb()
model = runtime.load(sys.argv[1])
loaded, loaded_mb = time.perf_counter(), peak_mb()
x = np.load(sys.argv[2])
before = time.perf_counter()
model(x)
first = time.perf_counter()
model(x)
second = time.perf_counter()
seconds = {
    "import": imported - started, "load": loaded - imported, "first_run": first - before, "second_run": second - first
}
figures = {name + "_ms": 1e3 * value for name, value in seconds.items()}
print(json.dumps(figures | {"imports_mb": imports_mb, "loaded_mb": loaded_mb, "peak_mb": peak_mb()}))
"""


def export(folder: Path, sparsity: float) -> dict[str, Any]:
    """Compile and export a random ResNet-50 of this sparsity to ``folder`` and return the sizes in bytes."""
    import numpy as np
    import torch
    from torchvision.models import resnet50

    from graphprune.compiler import compile
    from graphprune.passes import PruneWeights

    torch.manual_seed(0)
    model, x = resnet50(weights=None).eval(), torch.randn(1, 3, 224, 224)
    torch.save(model.state_dict(), folder / "state_dict.pt")
    np.save(folder / "x.npy", x.numpy())
    compiled = compile(model, PruneWeights(sparsity=sparsity, scope="layer") if sparsity else None, (x,))
    compiled.export(folder / "model.gp")
    compiled.export(folder / "model")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    layers = compiled.report().layers
    return {
        "artifact": (folder / "model.gp").stat().st_size,
        "library": (folder / "model" / "model.so").stat().st_size,
        "state_dict": (folder / "state_dict.pt").stat().st_size,
        "dense_weights": 4 * parameters,
        "notes": {layer.name: f"{layer.kernel}: {layer.note}" for layer in layers},
    }


def load_in_new_process(folder: Path) -> dict[str, float]:
    """Return what the process that loads and runs the artifact measures of itself."""
    command = [sys.executable, "-c", CHILD, str(folder / "model"), str(folder / "x.npy")]
    environment = dict(os.environ, TVM_USE_RUNTIME_LIB="1")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Export, load, and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--notes", action="store_true", help="also print what each layer became")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sizes = export(Path(name), options.sparsity)
        loading = load_in_new_process(Path(name))
    if options.notes:
        for layer, note in sizes["notes"].items():
            print(f"{layer:30} {note}")
    print(
        "artifact {artifact:.1f} MB (library {library:.1f} MB); torch's state dict {state_dict:.1f} MB, "
        "dense weights {dense_weights:.1f} MB".format(
            **{key: value / MB for key, value in sizes.items() if key != "notes"}
        )
    )
    print(
        "import {import_ms:.0f} ms, load {load_ms:.0f} ms, first run {first_run_ms:.0f} ms, second {second_run_ms:.0f} "
        "ms; peak memory {peak_mb:.0f} MB: {imports_mb:.0f} MB after imports, {loaded_mb:.0f} MB once loaded".format(
            **loading
        )
    )
    if options.json:
        Path(options.json).write_text(json.dumps({"command": sys.argv, **sizes, **loading}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
