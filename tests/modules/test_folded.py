"""The warm-up: tuned once with the first task, folded into the backbone, part of its fingerprint, for everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from conpet import ConPET
from conpet.backbone.load import load_backbone
from conpet.modules.folded_info import FOLDED
from conpet.testing import Trial, tiny_settings, toy_stream
from conpet.testing.checks import digest_of_weights, files
from tests.helpers.workspaces import Stopped, stop_at

STREAM = toy_stream(3, 2, 8, 2, 4)


def taught(folder: Path, tasks: int, name: str = "ws", **settings: Any) -> ConPET:
    return Trial(folder, tiny_settings(**{"backbone": {"warmup": "first-task"}, **settings})).taught(
        STREAM[:tasks], name
    )


def test_the_first_task_tunes_the_backbone_and_later_ones_leave_it(tmp_path: Path) -> None:
    cold = digest_of_weights(taught(tmp_path, 1, "cold", backbone={"warmup": "none"}))
    workspace = taught(tmp_path, 1)
    once = digest_of_weights(workspace)
    assert once != cold
    workspace.learn(STREAM[1])
    workspace.remove(STREAM[0].name)
    workspace.learn(STREAM[0])
    assert digest_of_weights(workspace) == once == digest_of_weights(ConPET.open(workspace.path))
    stages = [{cost.stage for cost in event.costs} for event in workspace.store.events() if event.verb == "learn"]
    assert ["warm-up" in names for names in stages] == [True, False, False]


def test_what_was_asked_of_the_cache_before_the_warm_up_is_not_forgotten(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 0)
    before = workspace.backbone
    workspace.learn(STREAM[0], evaluate=False)
    assert workspace.backbone is not before
    assert list(workspace.store.events())[-1].detail["cache"]["asked"] >= len(STREAM[0].train)


def test_the_warm_up_is_part_of_the_fingerprint_and_of_what_states_are_kept_by(tmp_path: Path) -> None:
    warm, cold = taught(tmp_path, 1), taught(tmp_path, 1, "cold", backbone={"warmup": "none"})
    other = taught(tmp_path, 1, "other", seed=5)
    assert len({one.backbone.fingerprint.digest for one in (warm, cold, other)}) == 3
    assert warm.backbone.fingerprint == taught(tmp_path, 1, "again").backbone.fingerprint
    for first, second in ((warm, cold), (warm, other)):
        one, two = (workspace.backbone.states(STREAM[1].train) for workspace in (first, second))
        assert not torch.allclose(one.features, two.features)
    assert warm.store.header().backbone["fingerprint"] == cold.store.header().backbone["fingerprint"]


def test_it_is_what_plain_peft_gives_when_its_adapter_is_merged(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 1)
    folder = workspace.export(STREAM[0].name, tmp_path / "module") / "backbone"
    base = load_backbone("tiny-random", dtype="float32", device="cpu").model
    merged = PeftModel.from_pretrained(base, folder).merge_and_unload()
    with torch.no_grad():
        expected = merged(input_ids=torch.arange(2, 12).unsqueeze(0)).last_hidden_state
        found = workspace.backbone.cut.model(input_ids=torch.arange(2, 12).unsqueeze(0)).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["dynamic", "emr", "ranpac"])
def test_every_kind_of_method_can_have_it_and_gives_the_same_after_reopening(method: str, tmp_path: Path) -> None:
    workspace = taught(tmp_path, 2, method=method)
    texts = [example.text for example in STREAM[0].test + STREAM[1].test]
    assert FOLDED in workspace.store.snapshot().shared
    answers = [(one.label, round(one.score, 4)) for one in workspace.predict(texts)]
    again = [(one.label, round(one.score, 4)) for one in ConPET.open(workspace.path).predict(texts)]
    assert answers == again
    assert files(workspace) == files(taught(tmp_path, 2, "again", method=method))


def test_interrupted_it_begins_again_and_ends_the_same(tmp_path: Path) -> None:
    whole = files(taught(tmp_path, 1, "whole"))
    broken = taught(tmp_path, 0, "broken")
    with pytest.raises(Stopped):
        broken.learn(STREAM[0], gate=False, progress=stop_at("warm-up", 0.5))
    assert FOLDED not in broken.store.snapshot().shared
    broken.learn(STREAM[0], evaluate=False, gate=False)
    assert files(broken) == whole


def test_another_process_that_has_the_workspace_open_sees_it(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 0)
    reader = ConPET.open(workspace.path)
    before = digest_of_weights(reader)
    workspace.learn(STREAM[0])
    assert reader.predict([STREAM[0].test[0]])[0].label in STREAM[0].labels
    assert digest_of_weights(reader) == digest_of_weights(workspace) != before
