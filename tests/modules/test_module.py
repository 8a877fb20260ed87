"""PET modules: trained over frozen weights, the same bytes from the same seed, PEFT's own format on disk."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from conpet.artifact import Artifact, ArtifactReader, InMemoryObject, write_artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch
from conpet.config import Settings, TaskSettings
from conpet.cost import metered
from conpet.errors import ConfigError, CorruptionError
from conpet.heads.labels import label_document
from conpet.heads.stored import StoredHead
from conpet.modules import module as module_file
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.modules.kinds import check_module
from conpet.modules.module import HEAD, PetModule, StoredModule
from conpet.modules.sublayers import linear_maps
from conpet.modules.training import train_module
from tests.helpers.backbones import EXAMPLES, LAYERS, custom_model, tiny_backbone, tiny_loaded, tiny_model
from tests.helpers.modules import TARGETS, artifact, job

SMALL = Settings.parse({"module": {"rank": 2}, "training": {"epochs": 3, "batch_size": 2, "learning_rate": 0.01}})


def settings(**values: Any) -> TaskSettings:
    return SMALL.for_task(values)


def digest(model: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def trained(backbone: Backbone, seed: int = 0, **values: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Train a module; return its tensors and the representations it gives."""
    found = train_module(backbone, job(backbone, settings(**values), seed))
    return found.module.tensors(), represented(backbone, found.module)


def represented(backbone: Backbone, module: PetModule) -> Tensor:
    states = backbone.states(EXAMPLES)
    with torch.no_grad():
        return module.represent(states.collate(range(len(EXAMPLES)), pad=1, device=backbone.device))


# What is trained


@pytest.mark.parametrize("architecture", ["llama", "bert"])
@pytest.mark.parametrize("values", [{}, {"module": "houlsby"}, {"module": "prefix"}], ids=str)
def test_a_bound_on_what_training_holds_changes_nothing_learned(
    architecture: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone(architecture, frozen_layers=2)
    with metered() as free:
        whole, expected = trained(backbone, **{"training.batch_size": len(EXAMPLES)}, **values)
    longest = max(len(one.ids) for one in backbone.encode(EXAMPLES))
    sizes: list[int] = []
    passed = PetModule._forward

    def counted(self: PetModule, batch: Batch) -> Tensor:
        sizes.append(batch.ids.numel())
        return passed(self, batch)

    monkeypatch.setattr(PetModule, "_forward", counted)
    with metered() as bounded:
        bound, found = trained(
            backbone, **{"training.batch_size": len(EXAMPLES), "training.micro_batch_tokens": 2 * longest}, **values
        )
    assert max(sizes[:-1]) <= 2 * longest  # the last pass is no training
    assert bounded.tokens > free.tokens  # every part is passed again when its gradients are due
    assert bound.keys() == whole.keys()
    for name, tensor in bound.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("values", [{}, {"module": "houlsby"}, {"training": {"micro_batch_tokens": 32}}], ids=str)
def test_offloaded_activations_change_nothing_learned(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone("llama", frozen_layers=2)
    expected, _ = trained(backbone, **values)
    found, _ = trained(
        backbone, **{"training.offload_activations": True}, **values
    )  # on the CPU they are in its memory anyway
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    kept: list[torch.device] = []

    def as_on_a_gpu(device: torch.device, *, offload: bool) -> AbstractContextManager[object]:
        kept.append(device)
        return kept_for_gradients(torch.device("cuda"), offload=offload)

    kept_for_gradients = module_file._saved_activations
    monkeypatch.setattr(module_file, "_saved_activations", as_on_a_gpu)
    packed: list[Tensor] = []
    monkeypatch.setattr(module_file, "save_on_cpu", lambda pin_memory: saved_tensors_hooks(packing, lambda one: one))

    def packing(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor.clone()

    found, _ = trained(backbone, **{"training.offload_activations": True}, **values)
    assert packed
    assert {device.type for device in kept} == {"cpu"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    packed.clear()
    trained(backbone, **values)
    assert not packed


def test_an_example_longer_than_the_bound_is_trained_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone("llama", frozen_layers=2)
    whole, _ = trained(backbone, **{"training.batch_size": len(EXAMPLES)})
    rows: list[int] = []
    passed = PetModule._forward
    monkeypatch.setattr(PetModule, "_forward", lambda self, batch: rows.append(len(batch.ids)) or passed(self, batch))
    alone, _ = trained(backbone, **{"training.batch_size": len(EXAMPLES), "training.micro_batch_tokens": 1})
    assert (set(rows[:-1]), rows[-1]) == ({1}, len(EXAMPLES))  # the last pass is no training
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-3, atol=1e-4)


def test_the_linear_maps_are_those_of_the_suffix() -> None:
    llama = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert linear_maps(tiny_backbone("llama", frozen_layers=2)) == llama
    assert linear_maps(tiny_backbone("llama", frozen_layers=0)) == llama
    assert linear_maps(tiny_backbone("bert", frozen_layers=3)) == ("dense", "key", "query", "value")
    assert linear_maps(Backbone(tiny_loaded(model=custom_model("named")))) == ("mix",)


@pytest.mark.parametrize("architecture", ["llama", "bert", "mpnet", "gpt-neox", "modernbert", "distilbert"])
def test_a_module_sits_on_the_layers_above_the_cut_alone(architecture: str) -> None:
    backbone = tiny_backbone(architecture, frozen_layers=3)
    module = PetModule(backbone, settings(), seed=0)
    path = f"base_model.model.{backbone.cut.path}."
    assert {name.removeprefix(path).split(".")[0] for name in module.parameters} == {"3"}
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in module.parameters.values())


def test_targets_and_rank_are_those_of_the_settings() -> None:
    module = PetModule(
        tiny_backbone(frozen_layers=2), settings(module={"targets": ("q_proj", "v_proj"), "rank": 3}), seed=0
    )
    assert len(module.parameters) == 2 * 2 * 2
    shapes = {name.split(".")[-3]: tuple(value.shape) for name, value in module.parameters.items() if "lora_A" in name}
    assert shapes == {"q_proj": (3, 32), "v_proj": (3, 32)}


def test_a_target_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no linear map w_proj; have: down_proj"):
        check_module(tiny_backbone(frozen_layers=2), settings(module={"targets": ("q_proj", "w_proj")}).module)


@pytest.mark.parametrize(("architecture", "frozen_layers"), [("llama", LAYERS), ("bert", LAYERS), ("gpt2", 2)])
def test_a_suffix_without_linear_maps_is_refused(architecture: str, frozen_layers: int) -> None:
    with pytest.raises(ConfigError, match="no linear maps"):
        check_module(tiny_backbone(architecture, frozen_layers=frozen_layers), settings().module)


# Training


@pytest.mark.parametrize(
    ("architecture", "frozen_layers"), [("llama", 2), ("llama", 0), ("bert", 2), ("mpnet", 2), ("modernbert", 1)]
)
def test_training_changes_the_module_and_not_one_byte_of_the_backbone(architecture: str, frozen_layers: int) -> None:
    backbone = tiny_backbone(architecture, frozen_layers=frozen_layers)
    before, fresh = digest(backbone.cut.model), PetModule(backbone, settings(), seed=0)
    first = fresh.tensors()
    tensors, _ = trained(backbone)
    assert digest(backbone.cut.model) == before
    assert all(not torch.equal(tensors[name], first[name]) for name in tensors)
    assert all(parameter.grad is None for parameter in backbone.cut.model.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.cut.model.parameters())


def test_training_learns_what_it_is_shown() -> None:
    for model in (None, custom_model("named")):
        backbone = Backbone(tiny_loaded(model=model))
        with metered() as costs:
            found = train_module(backbone, job(backbone, settings(training={"epochs": 20})))
        logits = found.head(represented(backbone, found.module))
        assert logits.argmax(1).tolist() == TARGETS.tolist()
        assert found.log.losses[0] == pytest.approx(torch.log(torch.tensor(3.0)).item())
        assert costs.steps == found.log.steps == 20 * 3


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    runs = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # whatever else was drawn before does not matter
        runs.append(trained(tiny_backbone(frozen_layers=2), seed=seed, module={"dropout": 0.3})[0])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    backbone = tiny_backbone(frozen_layers=2)
    torch.manual_seed(3)
    module = train_module(backbone, job(backbone, settings(module={"dropout": 0.5}, training={"epochs": 1}))).module
    drawn = torch.rand(1)
    PetModule(backbone, settings(), seed=1)
    assert module.parameters
    assert torch.equal(drawn, expected)


def test_steps_are_bounded() -> None:
    backbone = tiny_backbone(frozen_layers=2)
    found = train_module(backbone, job(backbone, settings(training={"max_steps": 4})))
    assert found.log.steps == 4


def test_competing_logits_share_the_softmax() -> None:
    backbone = tiny_backbone(frozen_layers=2)
    others = torch.full((len(EXAMPLES), 2), 5.0)
    alone, beside = (
        train_module(backbone, job(backbone, settings(), competing_logits=logits)) for logits in (None, others)
    )
    assert beside.log.losses[0] > alone.log.losses[0] + 1
    assert beside.head.out_features == 3


def test_dropout_is_off_but_in_training_and_never_touches_the_frozen_layers() -> None:
    backbone = tiny_backbone("bert", frozen_layers=2)
    module = PetModule(backbone, settings(module={"dropout": 0.5}), seed=0)
    with torch.no_grad():
        for parameter in module.parameters.values():
            parameter.fill_(0.1)
    assert torch.equal(represented(backbone, module), represented(backbone, module))
    module.train()
    assert not torch.equal(represented(backbone, module), represented(backbone, module))
    module.train(False)
    assert torch.equal(represented(backbone, module), represented(backbone, module))
    for parameter in module.parameters.values():
        parameter.detach().zero_()
    module.train()
    assert torch.equal(represented(backbone, module), represented(backbone, module))


def test_a_bfloat16_backbone_trains_float32_modules_close_to_a_float32_one() -> None:
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        loaded = replace(tiny_loaded(), model=tiny_model("llama").to(dtype))
        backbone = Backbone(loaded, frozen_layers=2)
        tensors, found[dtype] = trained(backbone, training={"epochs": 1, "learning_rate": 1e-3})
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert {parameter.dtype for parameter in backbone.cut.model.parameters()} == {dtype}
    apart = (found[torch.float32] - found[torch.bfloat16]).norm() / found[torch.float32].norm()
    assert apart < 0.05


# On disk


@pytest.mark.parametrize(("architecture", "frozen_layers"), [("llama", 2), ("llama", 0), ("bert", 2), ("gpt-neox", 3)])
def test_a_stored_module_loads_in_plain_peft_and_gives_the_same_states(
    architecture: str, frozen_layers: int, tmp_path: Path
) -> None:
    backbone = tiny_backbone(architecture, frozen_layers=frozen_layers)
    states = backbone.states(EXAMPLES)
    found = train_module(backbone, job(backbone, settings(module={"targets": "all-linear"})))
    write_artifact(tmp_path / "module", found.artifact())
    peft = PeftModel.from_pretrained(tiny_model(architecture), tmp_path / "module").eval()
    batch = states.collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    with torch.no_grad():
        hidden = peft(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        own = found.module.represent(batch)
    torch.testing.assert_close(own, backbone.pooling(hidden, batch), rtol=0, atol=1e-5)
    with torch.no_grad():
        plain = tiny_model(architecture)(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    assert (hidden - plain).abs().max() > 1e-2
    config = PeftConfig.from_pretrained(tmp_path / "module")
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (2, 16.0, architecture)


def test_a_module_goes_on_from_stored_weights(tmp_path: Path) -> None:
    backbone = tiny_backbone(frozen_layers=2)
    tensors, expected = trained(backbone)
    again = PetModule(backbone, settings(), seed=99)
    again.load(tensors)
    assert torch.equal(represented(backbone, again), expected)
    name = next(iter(tensors))
    for wrong in (
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "more": torch.zeros(1)},
        {**tensors, name: torch.zeros(9, 9)},
    ):
        with pytest.raises(CorruptionError, match="names or shapes"):
            again.load(wrong)


def test_a_stored_module_with_missing_or_surplus_tensors_is_refused(tmp_path: Path) -> None:
    backbone = tiny_backbone(frozen_layers=3)
    bases = {name: module for name, module in backbone.cut.model.named_modules() if isinstance(module, nn.Linear)}
    files = artifact(PetModule(backbone, settings(), seed=0), nn.Linear(32, 3))
    manifest = write_artifact(tmp_path / "module", files)
    stored = StoredModule.of(ArtifactReader(tmp_path / "module", manifest))
    assert len(stored.weights(bases)) == 7
    assert stored == StoredModule.of(ArtifactReader(tmp_path / "module", manifest))
    assert stored.reader.document(HEAD) == label_document(["0", "1", "2"])
    tensors, head = files.tensors[ADAPTER_TENSORS], files.tensors[HEAD]
    lost = next(name for name in tensors if "lora_B" in name)

    def torn(**changed: Any) -> StoredModule:
        return StoredModule.of(InMemoryObject(Artifact({**files.tensors, **changed}, files.documents)))

    with pytest.raises(CorruptionError, match=lost.replace(".", r"\.")):
        torn(adapter_model={name: value for name, value in tensors.items() if name != lost}).weights(bases)
    with pytest.raises(CorruptionError, match="more"):
        torn(adapter_model={**tensors, "more": torch.zeros(1)}).weights(bases)
    with pytest.raises(CorruptionError, match="bias"):
        StoredHead.read(torn(head={"weight": head["weight"]}).reader)
