"""The contracts of module kinds, replay schedules and heads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from conpet.api import ConPET
from conpet.data import Example, Task
from conpet.heads.base import Head
from conpet.heads.stored import make_head
from conpet.modules.kinds.base import ModuleKind
from conpet.replay.memory import new_examples
from conpet.replay.rehearsal import Rehearsal
from conpet.replay.schedule import rehearse
from conpet.testing.checks import Trial, require
from conpet.testing.methods import checked_with
from conpet.testing.registration import registered
from conpet.testing.toy import tiny_settings, toy_stream


def check_module_contract(kind: str | type[ModuleKind] | ModuleKind) -> None:
    """Check a module kind within the method `dynamic`: the contract of methods, and that the module learns.

    Args:
        kind: Its registered name, its class, or an instance.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with checked_with("module", kind, "dynamic", "module") as trial:
        workspace = trial.workspace()
        report = workspace.learn(toy_stream(1, 2, 12, 2, 8)[0])
        require(report.trainable_parameters > 0, "a module has no trained parameters")
        accuracy = report.evaluation.whole_accuracy if report.evaluation else None
        require(
            accuracy is not None and accuracy > 0.6, f"a module of this kind reaches an accuracy of only {accuracy}"
        )


def check_schedule_contract(schedule: str | type[Rehearsal] | Rehearsal) -> None:
    """Check a replay schedule within the method `emr`: the contract of methods, and the draws of the schedule.

    Args:
        schedule: Its registered name, its class, or an instance.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with checked_with("schedule", schedule, "emr", "replay") as trial:
        workspace = trial.workspace()
        memory = [new_examples(task) for task in toy_stream(2, 2, 6, 1, 1)]
        drawn = []
        for _ in range(2):
            rehearsal = rehearse(
                memory,
                workspace.backbone,
                schedule=workspace.settings.replay.schedule,
                steps=3,
                per_step=4,
                seed=5,
            )
            require(rehearsal is not None, "there are past examples and room for them, but nothing is replayed")
            assert rehearsal is not None  # noqa: S101 - for the type checker
            rows = [rehearsal.rows(step, 4) for step in range(3)]
            require(all(len(step_rows) == 4 for step_rows in rows), f"a step does not get its 4 rows: {rows}")
            known = range(len(rehearsal.states))
            require(all(row in known for step_rows in rows for row in step_rows), "a row is not the index of a state")
            again = [rehearsal.rows(step, 4) for step in reversed(range(3))]
            require(again[::-1] == rows, "a step asked for again draws other examples, so training cannot be resumed")
            drawn.append(rows)
        require(drawn[0] == drawn[1], "the same seed draws different examples")


def check_head_contract(head: str | type[Head] | Head, answers: Sequence[str]) -> None:
    """Check a head within the method `dynamic`: learn, store, predict, evaluate, roll back, remove.

    A task with the head is learned together with a task with labels.

    Args:
        head: Its registered name, its class, or an instance.
        answers: At least two different targets, as in data files.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with registered("head", head) as name, tempfile.TemporaryDirectory() as folder:
        labelled, other = toy_stream(2, 2, 8, 2, 6)
        task = _with_answers(other, name, answers)
        workspace = Trial(Path(folder), tiny_settings()).workspace()
        workspace.learn(labelled)
        report = workspace.learn(task)
        require(report.evaluation is not None, "learning with evaluation returned no evaluation")
        evaluation = workspace.evaluate()
        metrics = set(evaluation.tasks[task.name])
        value = _check_loss(name, workspace, answers)
        expected = set(make_head({"name": name}).measure([value], answers[:1]))
        require(expected <= metrics, f"the evaluation has {sorted(metrics)}, but the head measures {sorted(expected)}")
        before = _answers(workspace, task)
        require(any(value is not None for value in before), f"no input of task {task.name!r} is answered by its head")
        json.dumps(before, allow_nan=False)
        require(_answers(ConPET.open(workspace.path), task) == before, "a reopened workspace gives other answers")
        workspace.learn(replace(task, train=task.train[:-2]))
        workspace.rollback(task.name, 1)
        require(_answers(workspace, task) == before, "rolling back to a version does not restore its answers")
        workspace.remove(task.name)
        require(workspace.labels == labelled.labels, "removing the task changed the labels of another")
        predictions = workspace.predict([example.text for example in task.test])
        require(all(prediction.task == labelled.name for prediction in predictions), "a removed task still answers")


def _with_answers(task: Task, head: str, answers: Sequence[str]) -> Task:
    """Return a task with another head, and one target for each former label."""
    targets = cycle(answers)
    answer_of: dict[Any, str] = {label: next(targets) for label in task.labels}

    def answered(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(example.labelled(answer_of[example.label]) for example in examples)

    return Task(
        task.name, answered(task.train), answered(task.validation), answered(task.test), settings={"head": head}
    )


def _answers(workspace: ConPET, task: Task) -> list[Any]:
    """Return the answers of the task's head for its test examples; None if another task answers."""
    predictions = workspace.predict([example.text for example in task.test])
    return [prediction.answer if prediction.task == task.name else None for prediction in predictions]


def _check_loss(name: str, workspace: ConPET, answers: Sequence[str]) -> Any:
    """Check that a head's loss is one finite number per example, and that gradients reach all parameters.

    Returns:
        An answer of the head.
    """
    head = make_head({"name": name})
    document = head.document(answers)
    width = workspace.backbone.representation_size
    module = head.build(width, document, torch.device("cpu"))
    representations = torch.randn(len(answers), width, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    losses = head.loss(module, representations, head.targets(answers, document))
    require(
        losses.shape == (len(answers),), f"the loss has shape {list(losses.shape)} instead of one value per example"
    )
    require(bool(losses.isfinite().all()), "the loss is not finite")
    losses.sum().backward()
    require(
        all(parameter.grad is not None for parameter in module.parameters()), "the loss does not reach all parameters"
    )
    outputs = head.outputs(head.tensors(module), representations)
    require(len(outputs) == len(answers), "there must be a row of outputs for each representation")
    return head.answer(outputs[0], document).value
