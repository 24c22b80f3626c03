"""A few architectures outside of the zoo; ``python -m tests.zoo.sweep`` checks all of them."""

import pytest

from tests.zoo.check import check
from tests.zoo.models import zoo_names
from tests.zoo.unseen_models import unseen_names

QUICK = "torchvision/shufflenet_v2_x0_5 hf/albert hf/bart hf/gemma2 hf/gptj hf/opt hf/qwen2moe hf/dinov2".split()


@pytest.mark.parametrize("name", QUICK)
def test_pruned_model_equals_masked_original(name: str):
    outcome = check(name)
    assert outcome.status == "pruned", outcome.reason


def test_unseen_models_are_not_in_the_zoo():
    names = unseen_names()
    assert len(set(names)) == len(names) > 150
    assert not set(names) & set(zoo_names())
    assert set(QUICK) <= set(names)
