"""A workspace whose tasks chose different kinds of PET modules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conpet import ConPET, Task
from conpet.errors import ConfigError
from conpet.modules.kinds import MODULE_KINDS
from conpet.testing import ask, toy_stream
from tests.helpers.workspaces import workspace

STREAM = toy_stream(len(MODULE_KINDS), 2, 4, 1, 2)
MIXED = [replace(task, settings={"module": name}) for task, name in zip(STREAM, MODULE_KINDS, strict=True)]


def test_tasks_of_every_kind_live_in_one_workspace(tmp_path: Path) -> None:
    learner = workspace(tmp_path, selector={"top_k": len(MIXED)}, training={"epochs": 1})
    for task in MIXED:
        learner.learn(task, evaluate=False)
    texts = [task.test[0].text for task in STREAM]
    together = ask(learner, texts)
    reopened = ConPET.open(learner.path)
    for text, expected in zip(texts, together, strict=True):
        assert ask(reopened, [text])[0] == pytest.approx(expected, abs=1e-4)
    for task, name in zip(learner.tasks, MODULE_KINDS, strict=True):
        exported = learner.export(task.name, tmp_path / task.name)
        stored = task.active.objects["module"]
        document = json.loads((exported / "adapter_config.json").read_text())
        assert document == stored.document("adapter_config")
        assert document["peft_type"] == MODULE_KINDS[name].peft_type
        weights = "adapter_model.safetensors"
        assert (exported / weights).read_bytes() == (stored.folder / weights).read_bytes()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"module": "adaptor"}, "no module kind 'adaptor'; have: houlsby"),
        ({"module": {"kind": "houlsby", "dora": True}}, "unknown setting 'module.dora'; have: kind, width"),
    ],
)
def test_a_task_with_settings_its_kind_does_not_know_is_refused_before_anything_is_learned(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    learner = workspace(tmp_path)
    task: Task = replace(STREAM[0], settings=settings)
    with pytest.raises(ConfigError, match=said):
        learner.check([task])
    assert learner.tasks == ()


def test_the_papers_selector_stays_a_lora_whatever_the_modules_are(tmp_path: Path) -> None:
    learner = workspace(tmp_path, module="pfeiffer", selector={"name": "learned", "steps": 2}, training={"epochs": 1})
    for task in STREAM[:2]:
        learner.learn(task, evaluate=False)
    document = learner.store.snapshot().shared["selector"].document("adapter_config")
    assert (document["peft_type"], document["use_dora"]) == ("LORA", False)
    assert torch.tensor([sum(row.values()) for row in ask(learner, ["hello"])]).allclose(torch.ones(1), atol=1e-4)
