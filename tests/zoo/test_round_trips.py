"""Pruned models come back unchanged from every exit; ``python -m tests.zoo.round_trips`` tries more of them."""

import pytest

from tests.zoo.round_trips import EXITS, pruned

CASES = [
    ("hf/bert", "export"),
    ("hf/bert", "open-batch"),
    ("hf/llama", "open-batch"),
    ("hf/gpt2", "files"),
    ("hf/llama", "again"),
    ("hf/bert", "onnx"),
    ("hf/t5", "onnx"),
    ("hf/bert", "compile"),
    ("hf/bert", "tvm"),
]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_pruned_model_survives(name: str, way: str):
    through, tolerance = EXITS[way]
    small, example = pruned(name, dynamic_batch=way == "open-batch")
    assert through(small, example) <= tolerance
