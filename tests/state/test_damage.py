"""One bit changed on disk: noticed when it is first read and named with a way back; other tasks are still answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Example
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
        ("module", "refit_classes.safetensors", "version 1 of task 'text-1'"),
        ("memory", "test.jsonl", "version 1 of task 'text-1'"),
        ("statistics", "statistics.safetensors", "all tasks"),
        ("calibration", "calibration.json", "all tasks"),
        ("refit", "logistic.json", "all tasks"),
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


def cut_short(reader: ArtifactReader, name: str) -> Path:
    """Truncate a stored file."""
    path = reader.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_a_file_of_another_size_is_named_when_the_workspace_is_opened(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3)
    path = cut_short(learner.tasks[1].active.objects["module"], "adapter_model.safetensors")
    gone = learner.tasks[2].active.objects["module"].folder / "head.safetensors"
    gone.unlink()
    with pytest.warns(UserWarning, match="it belongs to version 1 of task") as warned:
        ConPET.open(learner.path)
    first, second = sorted(str(warning.message) for warning in warned)
    assert first.startswith(f"{path} has ")
    assert second.startswith(f"{gone} is missing")


@pytest.mark.parametrize("fusion", [ALL_RUN, {"name": "paper"}])
def test_the_other_tasks_are_evaluated(tmp_path: Path, fusion: dict[str, Any]) -> None:
    learner = workspace(tmp_path, 3, fusion=fusion)
    before = learner.evaluate()
    path = damage(learner.tasks[1].active.objects["module"], "adapter_model.safetensors")
    evaluation = ConPET.open(learner.path).evaluate()
    (left_out,) = evaluation.left_out
    assert (left_out.tasks, left_out.examples) == (("text-1",), len(TEXTS[1]))
    assert str(path) in str(left_out)
    assert evaluation.tasks == {name: metrics for name, metrics in before.tasks.items() if name != "text-1"}
    assert [one.row for one in evaluation.unanswered] == list(range(1, len(TEXTS[1]) + 1))


def test_examples_of_other_tasks_that_need_the_module_are_left_out_too(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, fusion=ALL_RUN)
    third = stream()[2]
    strange = (*third.test, Example.of_text(TEXTS[1][0] + ".", third.labels[0]))  # the selector finds task 1
    learner.learn(replace(third, test=strange))
    damage(learner.tasks[1].active.objects["module"], "adapter_model.safetensors")
    learner = ConPET.open(learner.path)
    evaluation = learner.evaluate()
    others = [one for one in evaluation.unanswered if one.task == third.name]
    assert [(one.row, one.label) for one in others] == [(len(strange), third.labels[0])]
    assert evaluation.tasks[third.name]["accuracy"].n == len(third.test)
    own = learner.evaluate([*strange, Example.of_text(TEXTS[1][1], "unheard of")])
    assert [(one.row, one.task) for one in own.unanswered] == [(len(strange), third.name), (len(strange) + 1, None)]
    assert {one.row for one in own.answers} == set(range(1, len(strange)))


def test_a_workspace_with_damaged_modules_can_be_changed(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 3, fusion=ALL_RUN)
    for task in learner.tasks[:2]:
        damage(task.active.objects["module"], "adapter_model.safetensors")
    learner = ConPET.open(learner.path)
    with pytest.warns(UserWarning, match="not evaluated: task 'text-1'"):
        after = learner.remove("text-0")
    assert after is not None
    assert after.tasks.keys() == {"text-2"}
    assert learner.remove("text-1")
    assert [answer.task for answer in learner.predict(TEXTS[2])] == ["text-2"] * len(TEXTS[2])
