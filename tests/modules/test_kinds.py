"""Every PET kind keeps one contract, on a causal model and on an encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import DynamicCache

from conpet.artifact import ArtifactReader, InMemoryObject, write_artifact
from conpet.backbone.backbone import Backbone
from conpet.errors import ConfigError, CorruptionError, UnknownNameError
from conpet.modules.adapter import ADAPTER_CONFIG, ADAPTER_TENSORS, Adapter
from conpet.modules.kinds import check_module
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.parameter_count import bottleneck_parameters, ia3_parameters, lora_parameters, prefix_parameters
from conpet.modules.pool import ModulePool
from conpet.modules.sublayers import find_sublayers, linear_maps
from conpet.modules.training import train_module
from tests.helpers.backbones import (
    CONFIGS,
    EXAMPLES,
    LAYERS,
    OWN_ATTENTION,
    custom_model,
    tiny_loaded,
    tiny_model,
)
from tests.helpers.modules import (
    ARCHITECTURES,
    IN_PEFT,
    TARGETS,
    VARIANTS,
    artifact,
    bench,
    digest,
    frozen,
    head_of,
    job,
    represented,
    settings,
    shaken,
    stored,
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_seed_gives_the_same_bytes_and_the_backbone_keeps_its_own(variant: str, architecture: str) -> None:
    backbone = bench(architecture)
    before = digest(backbone.cut.model)
    runs = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))
        module = train_module(backbone, job(backbone, settings(variant), seed)).module
        runs.append(module.tensors())
        drawn = torch.rand(1)
        torch.manual_seed(len(runs) - 1)
        assert torch.equal(drawn, torch.rand(1))  # nothing came from the global generator
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])
    assert digest(backbone.cut.model) == before
    assert not any(parameter.requires_grad for parameter in backbone.cut.model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_untrained_module_changes_nothing_where_its_kind_promises_it(variant: str, architecture: str) -> None:
    backbone = bench(architecture)
    module = PetModule(backbone, settings(variant), seed=0)
    same = torch.allclose(represented(backbone, module), frozen(backbone), rtol=0, atol=1e-5)
    assert same is (variant != "prefix")
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_moves_every_parameter_and_learns_what_it_is_shown(variant: str, architecture: str) -> None:
    backbone = bench(architecture)
    first = PetModule(backbone, settings(variant), seed=0).tensors()
    found = train_module(backbone, job(backbone, settings(variant, training={"epochs": 20})))
    assert found.head(represented(backbone, found.module)).argmax(1).tolist() == TARGETS.tolist()
    after = found.module.tensors()
    assert [name for name in after if torch.equal(after[name], first[name])] == []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_stored_gives_what_was_trained(variant: str, architecture: str, tmp_path: Path) -> None:
    backbone = bench(architecture)
    module, head = shaken(backbone, variant), head_of(backbone, 0, 3)
    expected = represented(backbone, module)
    assert (expected - frozen(backbone)).abs().max() > 0.05
    manifest = write_artifact(tmp_path / "module", artifact(module, head))
    reread = StoredModule.of(ArtifactReader(tmp_path / "module", manifest))
    assert torch.equal(represented(backbone, PetModule.of(backbone, reread.adapter())), expected)
    pool, states = ModulePool(backbone), backbone.states(EXAMPLES)
    torch.testing.assert_close(pool.represent(states, reread), expected, rtol=0, atol=1e-5)
    logits = torch.stack([found[reread] for found in pool.outputs(states, [[reread]] * len(states))])
    torch.testing.assert_close(logits, head(expected).detach(), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(("architecture", "frozen_layers"), [("llama", 2), ("llama", 0), ("bert", 2), ("mpnet", 2)])
@pytest.mark.parametrize("variant", IN_PEFT)
def test_what_is_stored_loads_in_plain_peft(
    variant: str, architecture: str, frozen_layers: int, tmp_path: Path
) -> None:
    backbone = bench(architecture, frozen_layers)
    module = shaken(backbone, variant)
    write_artifact(tmp_path / "module", artifact(module, head_of(backbone, 0, 3)))
    peft = PeftModel.from_pretrained(tiny_model(architecture), tmp_path / "module").eval()
    batch = backbone.states(EXAMPLES).collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    with torch.no_grad():
        hidden = peft(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    torch.testing.assert_close(backbone.pooling(hidden, batch), represented(backbone, module), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in IN_PEFT])
def test_plain_peft_refuses_what_is_not_its_own(variant: str, tmp_path: Path) -> None:
    backbone = bench("llama")
    write_artifact(tmp_path / "module", artifact(shaken(backbone, variant), head_of(backbone, 0, 3)))
    with pytest.raises((KeyError, ValueError, TypeError)):
        PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "module")


@pytest.mark.parametrize("architecture", ["llama", "bert", "qwen3", "roberta", "mpnet"])
def test_as_many_parameters_are_trained_as_the_formulas_say(architecture: str) -> None:
    backbone, config = bench(architecture, 1), CONFIGS[architecture]()
    above, maps = [1, 2, 3], linear_maps(bench(architecture, 1))
    formulas = {
        "lora": lora_parameters(config, maps, 2, above),
        "rslora": lora_parameters(config, maps, 4, above),
        "dora": lora_parameters(config, maps, 2, above, dora=True),
        "rsdora": lora_parameters(config, maps, 2, above, dora=True),
        "ia3": ia3_parameters(config, 3),
        "houlsby": bottleneck_parameters(config, 5, 3, per_layer=2),
        "pfeiffer": bottleneck_parameters(config, 3, 3, per_layer=1),
    }
    if architecture not in OWN_ATTENTION:
        formulas["prefix"] = prefix_parameters(config, 3, 3)
    modules = {variant: PetModule(backbone, settings(variant), 0) for variant in formulas}
    assert formulas == {
        variant: sum(parameter.numel() for parameter in module.parameters.values())
        for variant, module in modules.items()
    }


def test_parameters_of_one_layer_by_hand() -> None:
    """A Llama of hidden size 32, 4 heads of width 8, 2 of them with keys, feed-forward width 48."""
    config = CONFIGS["llama"]()
    assert ia3_parameters(config, 1) == 16 + 16 + 48
    assert prefix_parameters(config, 3, 1) == 3 * (16 + 16)
    assert bottleneck_parameters(config, 5, 1, per_layer=2) == 2 * (32 * 5 + 5 + 5 * 32 + 32)
    assert lora_parameters(config, ["k_proj"], 2, [0], dora=True) == 2 * (32 + 16) + 16


# What sits where


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name != "gpt2"])
def test_sublayers_are_found_by_watching_the_model_run(architecture: str) -> None:
    backbone = bench(architecture, 3)
    known = {
        "bert": (("attention.self.key", "attention.self.value"), "attention.output.dense", "output.dense"),
        "gpt-neox": (("attention.query_key_value",), "attention.dense", "mlp.dense_4h_to_h"),
        "modernbert": (("attn.Wqkv",), "attn.Wo", "mlp.Wo"),
        "mpnet": (("attention.attn.k", "attention.attn.v"), "attention.attn.o", "output.dense"),
        "distilbert": (("attention.k_lin", "attention.v_lin"), "attention.out_lin", "ffn.lin2"),
    }
    known["roberta"] = known["bert"]
    others = (("self_attn.k_proj", "self_attn.v_proj"), "self_attn.o_proj", "mlp.down_proj")
    (part,) = find_sublayers(backbone, "ia3")
    path = f"{backbone.cut.path}.3."
    names = (part.keys_values, part.attention_out, part.feed_forward_out)
    keys_values, attention, feed_forward = known.get(architecture, others)
    assert names == (tuple(path + one for one in keys_values), path + attention, path + feed_forward)


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name not in OWN_ATTENTION])
def test_a_prefix_can_sit_in_every_architecture_of_transformers(architecture: str) -> None:
    backbone = bench(architecture, 2)
    plain = PetModule(backbone, settings("prefix", module={"tokens": 1}), 0)
    with torch.no_grad():
        for name, parameter in plain.parameters.items():
            parameter.fill_(0.0 if name.endswith("key") else 5.0)
    assert (represented(backbone, plain) - frozen(backbone)).abs().max() > 0.05


@pytest.mark.parametrize("architecture", OWN_ATTENTION)
def test_a_prefix_is_refused_where_layers_compute_attention_themselves(architecture: str) -> None:
    with pytest.raises(ConfigError, match=rf"module.kind=prefix .* {architecture} has none.* module.kind=lora"):
        check_module(bench(architecture, 2), settings("prefix").module)


@pytest.mark.parametrize("kind", ["ia3", "houlsby", "pfeiffer", "prefix"])
def test_layers_that_have_no_sublayers_are_refused(kind: str) -> None:
    for backbone in (
        Backbone(tiny_loaded(model=custom_model("list"))),
        Backbone(tiny_loaded(model=custom_model("named"))),
    ):
        with pytest.raises(ConfigError, match=rf"module.kind={kind} .* module.kind=lora"):
            check_module(backbone, settings(kind).module)
    with pytest.raises(ConfigError, match=f"module.kind={kind}"):
        check_module(bench("llama", LAYERS), settings(kind).module)


@pytest.mark.parametrize("kind", ["ia3", "houlsby", "pfeiffer"])
def test_maps_that_are_no_linear_ones_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"module.kind={kind} needs .* a layer has no linear maps"):
        check_module(bench("gpt2"), settings(kind).module)


def test_vectors_sit_on_the_maps_named() -> None:
    module = PetModule(bench("bert", 3), settings("ia3", module={"targets": ("dense", "query")}), 0)
    shapes = {name.split("layer.3.")[1]: tuple(value.shape) for name, value in module.parameters.items()}
    assert shapes == {
        "attention.self.query.ia3_l": (32, 1),
        "attention.output.dense.ia3_l": (32, 1),
        "intermediate.dense.ia3_l": (48, 1),
        "output.dense.ia3_l": (1, 48),
    }


# Settings


@pytest.mark.parametrize("setting", [{"rslora": True}, {"dora": True}, {"dropout": 0.1}])
@pytest.mark.parametrize("kind", ["ia3", "houlsby", "pfeiffer", "prefix"])
def test_what_a_kind_does_not_know_is_refused(kind: str, setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigError, match=f"unknown setting 'module.{name}'; have: kind, "):
        settings(kind, module=setting)


def test_an_unknown_kind_is_refused_with_those_known() -> None:
    with pytest.raises(UnknownNameError, match="no module kind 'adaptor'; have: houlsby, ia3, lora, pfeiffer, prefix"):
        settings("lora", module="adaptor")
    module = shaken(bench("llama"), "lora")
    strange = Adapter(module.tensors(), {**module.document, "peft_type": "BONE"})
    with pytest.raises(CorruptionError, match=r"'BONE'.*LORA, IA3"):
        StoredModule.of(InMemoryObject(module_artifact(strange, {}, {}))).kind  # noqa: B018


def test_the_files_of_a_module_hold_nothing_else() -> None:
    for variant in VARIANTS:
        files = artifact(shaken(bench("llama"), variant), head_of(bench("llama"), 0, 2))
        assert set(files.tensors) == {ADAPTER_TENSORS, "head"}
        assert set(files.documents) == {ADAPTER_CONFIG, "head"}


# Against slow, plain computations


def test_a_prefix_is_what_transformers_cache_of_keys_and_values_does() -> None:
    backbone = bench("llama", 0)
    module = shaken(backbone, "prefix")
    batch = backbone.states(EXAMPLES).collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    rows, tokens = batch.ids.shape
    path = f"{backbone.cut.path}.{{}}.self_attn.prefix_{{}}"
    cache = DynamicCache()
    for layer in range(LAYERS):
        key, value = (module.tensors()[path.format(layer, name)].expand(rows, -1, -1, -1) for name in ("key", "value"))
        cache.update(key, value, layer)
    with torch.no_grad():
        hidden = tiny_model("llama")(
            input_ids=batch.ids,
            attention_mask=torch.cat([torch.ones(rows, 3, dtype=torch.int64), batch.mask], dim=1),
            position_ids=torch.arange(tokens).expand(rows, -1),
            past_key_values=cache,
        ).last_hidden_state
    torch.testing.assert_close(represented(backbone, module), backbone.pooling(hidden, batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
def test_a_bottleneck_is_what_its_formula_says(variant: str) -> None:
    """h + U gelu(D h + b) + c behind the sublayers' last maps, put there by hooks on a plain model."""
    backbone = bench("bert")
    module = shaken(backbone, variant)
    tensors = module.tensors()
    model = tiny_model("bert")
    names = ("down.weight", "down.bias", "up.weight", "up.bias")

    def behind(path: str) -> Any:
        down, bias, up, top = (tensors[f"{path}.adapter_{one}"] for one in names)
        return lambda _module, _inputs, h: h + nn.functional.gelu(h @ down.T + bias) @ up.T + top

    ends = ["output.dense", "attention.output.dense"][: 2 if variant == "houlsby" else 1]
    for layer in (2, 3):
        for end in ends:
            path = f"encoder.layer.{layer}.{end}"
            model.get_submodule(path).register_forward_hook(behind(path))
    batch = backbone.states(EXAMPLES).collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    with torch.no_grad():
        hidden = model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    torch.testing.assert_close(represented(backbone, module), backbone.pooling(hidden, batch), rtol=0, atol=1e-5)
    assert len(tensors) == 4 * 2 * len(ends)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bfloat16_backbone_serves_close_to_a_float32_one(variant: str) -> None:
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        backbone = Backbone(replace(tiny_loaded(), model=tiny_model("llama").to(dtype)), frozen_layers=2)
        module = stored(shaken(backbone, variant), head_of(backbone, 0, 2))
        states = backbone.states(EXAMPLES)
        found[dtype] = ModulePool(backbone).represent(states, module)
        trained = train_module(backbone, job(backbone, settings(variant, training={"epochs": 1}))).module
        assert {tensor.dtype for tensor in trained.tensors().values()} == {torch.float32}
    assert (found[torch.float32] - found[torch.bfloat16]).norm() / found[torch.float32].norm() < 0.05
