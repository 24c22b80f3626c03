"""A part of the zoo that is quick to trace and covers every family; ``make zoo`` runs all of it."""

import pytest

from tests.zoo.check import check
from tests.zoo.models import make, zoo_names

QUICK = """
torchvision/resnet18 torchvision/mobilenet_v3_small torchvision/shufflenet_v2_x1_0 torchvision/squeezenet1_0
torchvision/lraspp_mobilenet_v3_large timm/repvgg_a0 timm/deit_tiny_patch16_224 timm/mobilevit_xxs timm/mixer_s32_224
hf/bert hf/distilbert hf/roberta hf/gpt2 hf/llama hf/mistral hf/qwen2 hf/qwen3 hf/mixtral hf/t5 hf/vit hf/clip_vision
hf/whisper_encoder hf/segformer hf/mamba
""".split()


@pytest.mark.parametrize("name", QUICK)
def test_pruned_model_equals_masked_original(name: str):
    outcome = check(name)
    assert outcome.status == "pruned", outcome.reason


def test_the_zoo_has_84_models_of_three_libraries():
    names = zoo_names()
    assert len(set(names)) == len(names) == 84
    assert {name.split("/")[0] for name in names} == {"torchvision", "timm", "hf"}
    assert set(QUICK) <= set(names)


def test_models_have_no_constant_parameters():
    model = make("torchvision/mobilenet_v3_small").model
    constant = [name for name, p in model.named_parameters() if p.numel() > 1 and bool((p == p.flatten()[0]).all())]
    assert not constant
