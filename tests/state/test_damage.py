"""One bit changed on disk: noticed when it is first read and named with a way back; other tasks are still answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.artifact import ArtifactReader
from conpet.errors import CorruptionError, DamagedModuleError
from tests.helpers.workspaces import stream, workspace

ALL_RUN = {"name": "calibrated", "skip_above": 1.0}
"""A fusion that runs modules on every input."""
TEXTS = [[example.text for example in task.test] for task in stream()]


def damage(reader: ArtifactReader, name: str) -> Path:
    """Change one bit of a stored file, near its end."""
    path = reader.folder / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "deterministic"),
    [
        ("adapter_model.safetensors", False),
        ("adapter_model.safetensors", True),
        ("adapter_config.json", False),
        ("head.safetensors", False),
        ("head.json", False),
    ],
)
def test_a_damaged_module_stops_only_inputs_of_its_task(tmp_path: Path, name: str, deterministic: bool) -> None:
    learner = workspace(tmp_path, 3, fusion=ALL_RUN, selector={"top_k": 2})
    expected = [prediction.label for prediction in learner.predict(TEXTS[0] + TEXTS[2])]
    path = damage(learner.tasks[1].active.objects["module"], name)

    learner = ConPET.open(learner.path, deterministic=deterministic)
    with pytest.raises(DamagedModuleError, match=r"version 1 of task 'text-1': restore.*remove the task") as refused:
        learner.predict(TEXTS[1] + TEXTS[0])
    assert str(path) in str(refused.value)
    assert refused.value.inputs == tuple(range(1, len(TEXTS[1]) + 1))
    assert f"needed for {len(TEXTS[1])} inputs (1, 2, 3" in str(refused.value)
    with pytest.warns(UserWarning, match="answered without it"):
        assert [prediction.label for prediction in learner.predict(TEXTS[0] + TEXTS[2])] == expected


def test_one_module_an_input_as_in_the_paper(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, fusion={"name": "paper"}, selector={"top_k": 1})
    expected = learner.predict(TEXTS[0] + TEXTS[2])
    damage(learner.tasks[1].active.objects["module"], "adapter_model.safetensors")
    learner = ConPET.open(learner.path)
    with pytest.raises(DamagedModuleError):
        learner.predict(TEXTS[1])
    assert [answer.label for answer in learner.predict(TEXTS[0] + TEXTS[2])] == [answer.label for answer in expected]


@pytest.mark.parametrize("way", ["rollback", "remove", "restore the file"])
def test_each_way_back_works(tmp_path: Path, way: str) -> None:
    learner = workspace(tmp_path, 3, fusion=ALL_RUN)
    task = stream()[1]
    learner.learn(replace(task, train=task.train[:-2]))
    path = damage(learner.tasks[1].active.objects["module"], "adapter_model.safetensors")
    learner = ConPET.open(learner.path)
    with pytest.raises(CorruptionError, match=r"make version 1 active \(`conpet modules rollback`\), restore"):
        learner.predict(TEXTS[1])
    if way == "rollback":
        assert learner.rollback(task.name, 1).evaluation
    elif way == "remove":
        learner.remove(task.name)
        assert not learner.learn(task).skipped
    else:
        damage(learner.tasks[1].active.objects["module"], path.name)  # the same bit again
    assert {prediction.task for prediction in learner.predict(TEXTS[1])} == {task.name}


@pytest.mark.parametrize(
    ("slot", "name", "belongs"),
    [
        ("module", "classes.safetensors", "version 1 of task 'text-1'"),
        ("memory", "test.jsonl", "version 1 of task 'text-1'"),
        ("statistics", "statistics.safetensors", "all tasks"),
        ("calibration", "calibration.json", "all tasks"),
        ("logistic", "logistic.json", "all tasks"),
    ],
)
def test_everything_else_that_is_damaged_is_named(tmp_path: Path, slot: str, name: str, belongs: str) -> None:
    learner = workspace(tmp_path, 3)
    task = learner.tasks[1].active.objects
    path = damage(task[slot] if slot in task else learner.store.snapshot().shared[slot], name)
    learner = ConPET.open(learner.path)
    with pytest.raises(CorruptionError, match=f"it belongs to {belongs}") as refused:
        learner.evaluate()
    assert str(path) in str(refused.value)
