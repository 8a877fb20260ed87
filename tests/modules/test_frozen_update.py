"""A frozen LoRA beneath a trained one, and several LoRA modules joined into one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conpet.artifact import InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.errors import ConfigError
from conpet.heads.labels import LabelHead, label_document
from conpet.modules.kinds.lora import concatenated
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.pool import ModulePool
from tests.helpers.backbones import EXAMPLES, tiny_loaded, tiny_model
from tests.helpers.modules import (
    bench,
    frozen,
    head_of,
    represented,
    settings,
    shaken,
)


def test_a_past_lora_is_added_and_stays_as_it_is() -> None:
    backbone = bench("llama")
    past = shaken(backbone, "rslora", seed=1).adapter()
    module = PetModule(backbone, settings("lora"), seed=0, past=past)
    alone = represented(backbone, PetModule.of(backbone, past))
    torch.testing.assert_close(represented(backbone, module), alone, rtol=0, atol=1e-5)  # the new B is zero
    assert module.tensors().keys() == PetModule(backbone, settings("lora"), seed=0).tensors().keys()
    batch = backbone.states(EXAMPLES).collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    module.represent(batch).square().sum().backward()
    assert all(one.grad is not None for one in module.parameters.values())
    trained = {one for one in module._suffix.shell.parameters() if one.requires_grad}
    assert trained == set(module.parameters.values())


def test_concatenated_loras_serve_as_past_and_current_do_together() -> None:
    backbone = bench("bert")
    parts = [
        shaken(backbone, "lora", 1, module={"alpha": 3.0}),
        shaken(backbone, "rslora", 2),
        shaken(backbone, "lora", 3, module={"rank": 1}),
    ]
    past = concatenated([part.adapter() for part in parts[:2]])
    module = PetModule(backbone, settings("lora", module={"rank": 1}), seed=0, past=past)
    module.load(parts[2].tensors())
    expected = represented(backbone, module)
    joined = concatenated([past, module.adapter()])
    assert joined.document["r"] == 2 + 4 + 1
    one = StoredModule.of(
        InMemoryObject(
            module_artifact(joined, LabelHead().tensors(head_of(backbone, 0, 2)), label_document(["a", "b"]))
        )
    )
    found = ModulePool(backbone).represent(backbone.states(EXAMPLES), one)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(represented(backbone, PetModule.of(backbone, joined)), expected, rtol=0, atol=1e-5)
    # by hand, on one map
    name = next(key for key in joined.tensors if "lora_A" in key)
    up = name.replace("lora_A", "lora_B")
    by_hand = sum(
        scale * part.tensors()[up] @ part.tensors()[name]
        for scale, part in zip((3.0 / 2, 16.0 / 4**0.5, 16.0 / 1), parts, strict=True)
    )
    torch.testing.assert_close(joined.tensors[up] @ joined.tensors[name], by_hand, rtol=1e-5, atol=1e-5)


def test_only_plain_loras_on_the_same_maps_can_be_joined() -> None:
    backbone = bench("llama")
    lora, dora = shaken(backbone, "lora").adapter(), shaken(backbone, "dora").adapter()
    few = shaken(backbone, "lora", module={"targets": ("q_proj",)}).adapter()
    for wrong in (dora, shaken(backbone, "ia3").adapter()):
        with pytest.raises(ConfigError, match="plain LoRA"):
            concatenated([lora, wrong])
        with pytest.raises(ConfigError, match="plain LoRA"):
            PetModule(backbone, settings("lora"), 0, past=wrong)
    for variant in ("dora", "ia3"):
        with pytest.raises(ConfigError, match="plain LoRA"):
            PetModule(backbone, settings(variant), 0, past=lora)
    with pytest.raises(ConfigError, match=r"same maps.*only one adapts: .*down_proj"):
        concatenated([lora, few])
    with pytest.raises(ConfigError, match=r"same maps as the new one; only one adapts: .*down_proj"):
        PetModule(backbone, settings("lora"), 0, past=few)
    with pytest.raises(ConfigError, match="at least one"):
        concatenated([])


def test_a_past_lora_stands_beneath_one_trained_in_bfloat16() -> None:
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        backbone = Backbone(replace(tiny_loaded(), model=tiny_model("llama").to(dtype)), frozen_layers=2)
        past = shaken(backbone, "lora", seed=1).adapter()
        found[dtype] = represented(backbone, PetModule(backbone, settings("lora"), 0, past=past))
    assert (found[torch.float32] - found[torch.bfloat16]).norm() / found[torch.float32].norm() < 0.05
    assert (found[torch.float32] - frozen(bench("llama"))).norm() / found[torch.float32].norm() > 0.1
