"""Runs DeepSparse in an interpreter of its own, on request, one JSON line in, one out; started by ``peers.py``.

It needs ``deepsparse==1.8.0 "numpy<2"`` on Python 3.11 and nothing of graphprune.

    python deepsparse_worker.py MODEL.onnx INPUTS.npz THREADS
"""

import json
import sys
import time

import numpy as np
from deepsparse import compile_model


def main() -> None:
    path, inputs_path, threads = sys.argv[1:]
    arrays = np.load(inputs_path)
    inputs = [np.ascontiguousarray(arrays[name]) for name in arrays.files]
    engine = compile_model(path, batch_size=len(inputs[0]), num_cores=int(threads))
    outputs = engine.run(inputs)
    np.savez(inputs_path + ".out.npz", *outputs)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        engine.run(inputs)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
