"""Pruned modules saved and loaded into fresh models of the original code."""

import pytest
import torch

import graphprune as gp
from graphprune.errors import ArtifactError
from graphprune.passes import PruneChannels, PruneHeads
from tests.pruning_models import MODELS, inputs, model
from tests.zoo.check import relative_error
from tests.zoo.models import make

HALF = PruneChannels(ratio=0.5)


def pruned(name):
    module, x = model(name), inputs(name)
    plan = gp.plan(module, HALF, x)
    return plan.apply_(module, x), plan, x


@pytest.mark.parametrize("name", list(MODELS))
def test_a_folder_round_trip(name, tmp_path):
    module, plan, x = pruned(name)
    gp.save_pruned(module, plan, tmp_path / "small")
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["graphprune.plan", "model.safetensors"]
    fresh = gp.load_pruned(MODELS[name]().eval(), tmp_path / "small", example_inputs=x)
    assert relative_error(fresh(*x), module(*x)) < 1e-6


def test_a_saved_graph_loads_into_a_module(tmp_path):
    plan = gp.plan(model("attention"), HALF, inputs("attention"))
    small = gp.prune(model("attention"), plan, inputs("attention"))
    gp.save_pruned(small, plan, tmp_path)
    fresh = gp.load_pruned(MODELS["attention"]().eval(), tmp_path, example_inputs=inputs("attention"))
    assert relative_error(fresh(*inputs("attention")), small(*inputs("attention"))) < 1e-5
    assert fresh.logits.weight is fresh.embedding.weight


@pytest.mark.parametrize("form", ["dict", "torch", "safetensors"])
def test_forms_of_a_state(form, tmp_path):
    module, plan, x = pruned("residual")
    state = module.state_dict()
    plan.save(tmp_path / "half.plan")
    if form == "torch":
        torch.save(state, tmp_path / "state.pt")
        state = tmp_path / "state.pt"
    elif form == "safetensors":
        gp.save_pruned(module, plan, tmp_path / "folder")
        state = tmp_path / "folder" / "model.safetensors"
    fresh = gp.load_pruned(MODELS["residual"]().eval(), tmp_path / "half.plan", state, x)
    assert relative_error(fresh(*x), module(*x)) < 1e-6


def test_a_model_that_is_small_already_is_only_loaded():
    module, plan, x = pruned("residual")
    other = gp.load_pruned(MODELS["residual"]().eval(), plan, module.state_dict(), x)
    again = gp.load_pruned(other, plan, {name: t + 1 for name, t in module.state_dict().items()}, x)
    assert again is other and torch.equal(again.head.bias, module.head.bias + 1)


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "file", "plan"])
def test_what_does_not_fit_is_refused_and_the_model_stays(damage, tmp_path):
    module, plan, x = pruned("residual")
    state = dict(module.state_dict())
    source = plan
    if damage == "missing":
        del state["head.bias"]
    elif damage == "surplus":
        state["more"] = torch.zeros(1)
    elif damage == "shape":
        state["head.bias"] = torch.zeros(9)
    elif damage == "file":
        (tmp_path / "model.safetensors").write_bytes(b"nothing")
        state = tmp_path
    else:
        gp.save_pruned(module, plan, tmp_path)
        gp.plan(model("residual"), PruneChannels(ratio=0.25), x).save(tmp_path / "graphprune.plan")
        source, state = tmp_path, None
    fresh = MODELS["residual"]().eval()
    shapes = {name: t.shape for name, t in fresh.state_dict().items()}
    with pytest.raises(ArtifactError):
        gp.load_pruned(fresh, source, state, x)
    assert {name: t.shape for name, t in fresh.state_dict().items()} == shapes


CASES = [
    ("hf/llama", HALF, {"hidden_size": 24, "intermediate_size": 48}),
    ("hf/llama", PruneHeads(ratio=0.5), {"num_attention_heads": 4, "num_key_value_heads": 1}),
    ("hf/bert", PruneChannels(ratio=0.5, kinds=("neuron",), ignore=("*pooler*",)), {"intermediate_size": 48}),
    ("hf/bert", HALF, None),
    ("hf/vit", PruneChannels(ratio=0.5, kinds=("neuron",)), {"intermediate_size": 48}),
    ("hf/vit", PruneHeads(ratio=0.5), None),
]


@pytest.mark.parametrize(("name", "prune_pass", "sizes"), CASES)
def test_transformers_models(name, prune_pass, sizes, tmp_path):
    """``sizes``: what the configuration must say afterwards; None: no configuration describes the pruned model."""
    example = make(name)
    inputs_of = {"example_inputs": example.args, "example_kwargs": example.kwargs}
    plan = gp.plan(example.model, prune_pass, **inputs_of)
    before = example.model.config.to_dict()
    plan.apply_(example.model, **inputs_of)
    after = example.model.config.to_dict()
    assert {key: after[key] for key in after if after[key] != before[key]} == (sizes or {})
    with torch.no_grad():
        expected = example.model(*example.args, **example.kwargs)[0]
    example.model.save_pretrained(tmp_path)
    plan.save(tmp_path / "graphprune.plan")
    kind = type(example.model)
    fresh = kind(type(example.model.config).from_pretrained(tmp_path)).eval()
    gp.load_pruned(fresh, tmp_path, **inputs_of)
    loaded = [fresh] if sizes is None else [fresh, kind.from_pretrained(tmp_path)]
    for candidate in loaded:
        with torch.no_grad():
            torch.testing.assert_close(candidate(*example.args, **example.kwargs)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_timm_model(tmp_path):
    timm = pytest.importorskip("timm")
    options = {"pretrained": False, "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    original, x = timm.create_model("vit_tiny_patch16_224", **options).eval(), (torch.randn(1, 3, 32, 32),)
    plan = gp.plan(original, PruneChannels(ratio=0.5), x)
    plan.apply_(original, x)
    gp.save_pruned(original, plan, tmp_path)
    fresh = gp.load_pruned(timm.create_model("vit_tiny_patch16_224", **options).eval(), tmp_path, example_inputs=x)
    assert relative_error(fresh(*x), original(*x)) < 1e-6
