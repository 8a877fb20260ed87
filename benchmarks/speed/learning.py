"""Rows that measure learning."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from benchmarks.speed.bench import BATCH, Bench
from benchmarks.speed.machine import achieved, pass_work
from benchmarks.speed.profiling import profiled
from benchmarks.speed.rivals import PeftLoop
from benchmarks.speed.row import Row
from benchmarks.speed.timing import Goal, Measured, Pairs, UnequalError, check_close, in_turns
from conpet import ConPET
from conpet.backbone.backbone import Backbone
from conpet.backbone.cache import StateCache
from conpet.backbone.states import Encoded
from conpet.config import Settings, TaskSettings
from conpet.data import Example, Task
from conpet.heads.labels import indices_of
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.modules.module import PetModule
from conpet.modules.optimisation import epoch_batches
from conpet.modules.training import TrainingJob, train_module
from conpet.replay.memory import Subset, states_of
from conpet.replay.memory_writer import past_examples
from conpet.state.reading import seed_of
from conpet.state.slots import MODULE
from conpet.types import LearnReport

BUDGETS = (1, 2, 3, 5)
"""Epochs tried in addition to the full number, to find the fewest that reach an accuracy."""
COMPARED_STEPS = 3
"""Number of steps whose losses are compared; later ones diverge as rounding errors accumulate."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """The task that both sides learn."""

    task: Task
    settings: TaskSettings
    seed: int

    @classmethod
    def of(cls, bench: Bench) -> TaskData:
        """Return the first task with the settings of all rows."""
        task = bench.tasks[0]
        settings = Settings.parse({"training": {"epochs": bench.sizes.epochs, "batch_size": BATCH}})
        return cls(task, settings.for_task({}), seed_of(settings.seed, task.name))

    @property
    def held_out(self) -> tuple[Example, ...]:
        """Examples used by neither side for training or choices, to compare accuracies."""
        return self.task.test[::3]

    def encoded(self, backbone: Backbone) -> list[Encoded]:
        """Return the training examples as token ids."""
        return backbone.encode(self.task.train)

    def lasting(self, epochs: int) -> Task:
        """Return the task with this number of epochs."""
        return replace(self.task, settings={"training": {"epochs": epochs}})

    def targets(self, examples: Sequence[Example]) -> Tensor:
        """Return labels as indices into the labels of the task."""
        return indices_of([str(example.label) for example in examples], self.task.labels)

    def job(self, backbone: Backbone, settings: TaskSettings) -> TrainingJob:
        """Return the training of a module and head on the task."""
        answers = [str(example.label) for example in self.task.train]
        states = backbone.states(self.task.train)
        return TrainingJob.over_labels(states, answers, self.task.labels, settings, self.seed)

    def about(self, backbone: Backbone) -> dict[str, Any]:
        """Return a description of the work, for the result file."""
        return {
            "backbone": backbone.name,
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "layers": backbone.cut.layers,
            "frozen_layers": backbone.frozen_layers,
            "examples": len(self.task.train),
            "tokens": sum(len(example.ids) for example in self.encoded(backbone)),
            "epochs": self.settings.training.epochs,
            "batch_size": self.settings.training.batch_size,
        }


def fresh(bench: Bench, number: int) -> ConPET:
    """Return an empty workspace whose backbone is in memory and whose cache of states is empty."""
    learner = bench.create(bench.scratch(f"learn-{number}"), bench.sizes.large, training={"epochs": bench.sizes.epochs})
    learner.backbone.states([Example.of_text("loaded once per process")], keep=False)
    clear_states(learner)
    return learner


def clear_states(learner: ConPET) -> None:
    """Empty the cache of states."""
    assert learner.backbone.cache is not None
    learner.backbone.cache.clear()


class LearnSameLayers(Row):
    name = "learn-same-layers"
    goals: ClassVar[Mapping[str, Goal]] = {
        "learn-same-layers": Goal(
            "learn one task (10 epochs, top quarter of the layers), including the first pass and saving",
            "PEFT LoRA on the same layers, standard loop",
            "at least",
            4.0,
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        task_data, backbone = TaskData.of(bench), bench.backbone(bench.sizes.large)
        adapted = range(backbone.frozen_layers, backbone.cut.layers)
        rival, targets = PeftLoop(backbone, task_data.settings, adapted), task_data.targets(task_data.task.train)
        rival.choose_attention(task_data.encoded(backbone), targets)
        equal = same_losses(backbone, rival, task_data, bench.tolerance(backbone))
        epochs = bench.sizes.epochs
        pairs = against_peft(bench, task_data, rival, epochs, epochs, save=bench.scratch("peft"))
        stages = stages_of(pairs.ours[-1])
        learner, encoded = fresh(bench, 0), task_data.encoded(backbone)
        one_epoch = profiled(
            [
                lambda: learner.learn(task_data.lasting(1), evaluate=False),
                lambda: rival.train(encoded, targets, epochs=1),
            ]
        )
        step = training_work(backbone, task_data)
        return {
            self.name: pairs.measured(
                equal,
                **task_data.about(backbone),
                attention=rival.attention,
                stages=stages,
                profile=one_epoch,
                profiled="One epoch instead of ten",
                floor=floor(backbone, task_data, adapted),
                roofline={"training": achieved(step, stages["module"], backbone.dtype)},
            )
        }


class LearnAllLayers(Row):
    name = "learn-all-layers"
    goals: ClassVar[Mapping[str, Goal]] = {
        "learn-all-layers": Goal("learn that task", "PEFT LoRA on all layers, also 10 epochs", "at least", 5.0),
        "learn-equally-well": Goal(
            "learn that task, each side in the fewest epochs that reach the same accuracy",
            "PEFT LoRA on all layers, to the same accuracy",
            "at least",
            5.0,
        ),
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        task_data, backbone = TaskData.of(bench), bench.backbone(bench.sizes.large)
        rival = PeftLoop(backbone, task_data.settings, None)
        rival.choose_attention(task_data.encoded(backbone), task_data.targets(task_data.task.train))
        equal = same_losses(
            bench.backbone(bench.sizes.large, frozen_layers=0), rival, task_data, bench.tolerance(backbone)
        )
        epochs = bench.sizes.epochs
        budgets = [*(few for few in BUDGETS if few < epochs), epochs]
        by_side = [
            {budget: accuracy(budget) for budget in budgets}
            for accuracy in (
                partial(our_accuracy, bench, task_data),
                partial(their_accuracy, rival, task_data, backbone),
            )
        ]
        wanted = min(accuracies[epochs] for accuracies in by_side)
        enough = [min(budget for budget in budgets if accuracies[budget] >= wanted) for accuracies in by_side]
        detail = {
            **task_data.about(backbone),
            "attention": rival.attention,
            "accuracies": {"budgets": budgets, "ours": [*by_side[0].values()], "theirs": [*by_side[1].values()]},
        }
        reached = f"{equal}; held-out accuracy of {100 * wanted:.1f}% or more by both"
        floors = {
            "learn-all-layers": floor(backbone, task_data, range(backbone.cut.layers)),
            "learn-equally-well": floor(backbone, task_data, range(backbone.cut.layers), *enough),
        }
        return {
            "learn-all-layers": against_peft(bench, task_data, rival, epochs, epochs).measured(
                equal, **detail, floor=floors["learn-all-layers"]
            ),
            "learn-equally-well": against_peft(bench, task_data, rival, *enough).measured(
                reached, **detail, enough=enough, floor=floors["learn-equally-well"]
            ),
        }


def against_peft(
    bench: Bench, task_data: TaskData, rival: PeftLoop, ours: int, theirs: int, save: Path | None = None
) -> Pairs[ConPET, LearnReport, list[float]]:
    """Learn a task in turns with the rival, each with its number of epochs."""
    encoded, targets = task_data.encoded(rival.backbone), task_data.targets(task_data.task.train)
    return in_turns(
        lambda number: fresh(bench, number),
        lambda learner: learner.learn(task_data.lasting(ours), evaluate=False),
        lambda _: rival.train(encoded, targets, seed=task_data.seed, epochs=theirs, save=save),
        bench.sizes.learn_pairs,
        warm=False,
    )


def our_accuracy(bench: Bench, task_data: TaskData, epochs: int) -> float:
    """Learn a task and return the accuracy on its held-out examples."""
    learner = fresh(bench, 0)
    learner.learn(task_data.lasting(epochs), evaluate=False)
    answers = learner.predict([example.labelled(None) for example in task_data.held_out], top_n=1)
    return sum(
        answer.label == example.label for answer, example in zip(answers, task_data.held_out, strict=True)
    ) / len(answers)


def their_accuracy(rival: PeftLoop, task_data: TaskData, backbone: Backbone, epochs: int) -> float:
    """Train the rival and return its accuracy on the held-out examples."""
    found: list[Tensor] = []
    held_out = backbone.encode(task_data.held_out)
    rival.train(
        task_data.encoded(backbone),
        task_data.targets(task_data.task.train),
        seed=task_data.seed,
        epochs=epochs,
        done=lambda logits_of: found.append(logits_of(held_out)),
    )
    return accuracy_of(found[0], task_data.targets(task_data.held_out))


def stages_of(report: LearnReport) -> dict[str, float]:
    """Return the seconds of each stage."""
    return {stage.stage: round(stage.seconds, 4) for stage in report.cost}


def accuracy_of(logits: Tensor, targets: Tensor) -> float:
    """Return the fraction of examples whose label has the largest logit."""
    return float((logits.argmax(1) == targets).float().mean())


def same_losses(backbone: Backbone, rival: PeftLoop, task_data: TaskData, tolerance: float) -> str:
    """Check that a few steps from the same initial weights have the same losses on both sides.

    Raises:
        UnequalError: The losses differ.
    """
    training = task_data.settings.training.model_copy(update={"max_steps": COMPARED_STEPS})
    settings = task_data.settings.model_copy(update={"training": training})
    targets = task_data.targets(task_data.task.train)
    ours = train_module(backbone, task_data.job(backbone, settings))
    start = PetModule(backbone, settings, task_data.seed).tensors()
    theirs = rival.train(
        task_data.encoded(backbone), targets, seed=task_data.seed, start=start, steps=len(ours.log.losses)
    )
    return check_close(f"losses of {len(theirs)} steps", torch.tensor(ours.log.losses), torch.tensor(theirs), tolerance)


def training_work(backbone: Backbone, task_data: TaskData) -> dict[str, float]:
    """Return operations and bytes of training a module of the suffix for all epochs."""
    lengths = [len(example.ids) for example in task_data.encoded(backbone)]
    batches = [
        len(rows) * max(lengths[row] for row in rows)
        for epoch in range(task_data.settings.training.epochs)
        for rows in epoch_batches(
            lengths, task_data.settings.training.batch_size, torch.Generator().manual_seed(task_data.seed + epoch)
        )
    ]
    return pass_work(backbone, batches, range(backbone.frozen_layers, backbone.cut.layers), backward=True)


def floor(
    backbone: Backbone, task_data: TaskData, adapted: range, ours: int | None = None, theirs: int | None = None
) -> dict[str, float]:
    """Return the best possible ratio by the number of operations, if both sides compute at the same rate.

    A forward pass through a layer counts 1, and so does a backward pass (only gradients of the input). In every epoch,
    the rival runs all layers forwards and its adapted layers backwards. conpet runs the frozen layers once, and the
    layers above forwards and backwards in every epoch.

    Args:
        backbone: The model.
        task_data: The task.
        adapted: The adapted layers of the rival.
        ours: conpet's epochs; None for those of the task.
        theirs: The rival's epochs; None for those of the task.
    """
    layers, below, epochs = backbone.cut.layers, backbone.frozen_layers, task_data.settings.training.epochs
    passed = (theirs or epochs) * (layers + len(adapted))
    needed = below + (ours or epochs) * 2 * (layers - below)
    return {"theirs": passed, "ours": needed, "ratio": passed / needed}


class LearnTogether(Row):
    name = "learn-together"
    goals: ClassVar[Mapping[str, Goal]] = {
        "learn-together": Goal(
            "learn 10 tasks of 8 examples in one change (`--batch 10`)",
            "conpet: one by one",
            "at least",
            2.0,
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        tasks = bench.toys[: bench.sizes.few]

        def prepare(number: int) -> tuple[ConPET, ConPET]:
            batched, single = (
                bench.create(bench.scratch(f"{side}-{number}"), bench.sizes.large) for side in ("batched", "single")
            )
            for learner in (batched, single):
                learner.backbone.states([Example.of_text("loaded once per process")], keep=False)
            return batched, single

        def learn(learner: ConPET, batch: int) -> list[LearnReport]:
            clear_states(learner)
            return list(learner.learn_stream(tasks, batch=batch, evaluate=False))

        pairs = in_turns(
            prepare,
            lambda both: learn(both[0], len(tasks)),
            lambda both: learn(both[1], 1),
            bench.sizes.learn_pairs,
            warm=False,
        )
        ours, theirs = pairs.given[-1]
        found, expected = (
            torch.cat(
                [weight.flatten() for task in tasks for _, weight in sorted(module_of(learner, task.name).items())]
            )
            for learner in (ours, theirs)
        )
        equal = check_close(f"weights of {len(tasks)} modules", found, expected, bench.tolerance(ours.backbone))
        return {
            self.name: pairs.measured(
                equal,
                backbone=bench.sizes.large,
                examples=sum(len(task.train) for task in tasks),
                stages_a_task={
                    side: stages_a_task(reports[-1])
                    for side, reports in (("together", pairs.ours), ("apart", pairs.theirs))
                },
            )
        }


def stages_a_task(reports: Sequence[LearnReport]) -> dict[str, float]:
    """Return the mean seconds per task of each stage."""
    seconds: Counter[str] = Counter()
    for report in reports:
        seconds.update({stage.stage: stage.seconds for stage in report.cost})
    return {stage: round(spent / len(reports), 4) for stage, spent in seconds.items()}


class Prepared(NamedTuple):
    """A workspace in use, and its cache of states: that of the examples stored, but not of the task to learn."""

    learner: ConPET
    cache: StateCache


class LearnLateTask(Row):
    name = "learn-late-task"
    goals: ClassVar[Mapping[str, Goal]] = {
        "learn-late-task": Goal("learn task 100", "conpet: learn task 2 of the same size", "at most", 1.05)
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        sources = {"late": bench.many(bench.sizes.hundred - 1), "early": bench.many(1)}
        task = replace(bench.tasks[0], settings={"training": {"epochs": 3}})

        def prepare(number: int) -> tuple[Prepared, Prepared]:
            sides = []
            for name, source in sources.items():
                path = bench.scratch(f"{name}-{number}")
                shutil.copytree(source, path)
                learner = ConPET.open(path, device=bench.device)
                learner.predict(["loaded once per process"])
                cache = learner.backbone.cache = StateCache(path.with_suffix(".states"), limit_bytes=1 << 30)
                read_held_out(learner)
                sides.append(Prepared(learner, cache))
            return sides[0], sides[1]

        def learn(side: Prepared) -> LearnReport:
            side.learner.backbone.cache = side.cache
            return side.learner.learn(task, evaluate=False)

        pairs = in_turns(
            prepare,
            lambda both: learn(both[0]),
            lambda both: learn(both[1]),
            bench.sizes.pairs,
            profile=profiled,
        )
        equal = same_module(*(side.learner for side in pairs.given[-1]), task.name)
        stages = [stages_of(reports[-1]) for reports in (pairs.ours, pairs.theirs)]
        return {
            self.name: pairs.measured(
                equal,
                backbone=bench.sizes.small,
                examples=len(task.train),
                epochs=3,
                stages={"late": stages[0], "early": stages[1]},
                growth=bench.growth(),
            )
        }


def read_held_out(learner: ConPET) -> None:
    """Fill the cache of states with what earlier changes left there: held-out examples of the tasks, with features."""
    *compared, newest = past_examples(learner.store.snapshot().tasks)
    newest.states(learner.backbone, Subset.VALIDATION)
    if compared:
        drawn = [(source, range(source.count(Subset.VALIDATION))) for source in compared]
        states_of(drawn, learner.backbone, Subset.VALIDATION, features_first=True)


def module_of(learner: ConPET, task: str) -> Mapping[str, Tensor]:
    """Return the weights of a task's module."""
    weights: Mapping[str, Tensor] = learner.store.snapshot().task(task).active.objects[MODULE].tensors(ADAPTER_TENSORS)
    return weights


def same_module(first: ConPET, second: ConPET, task: str) -> str:
    """Check that a task has the same module in two workspaces, whatever was learned before.

    Raises:
        UnequalError: The modules differ.
    """
    left, right = (module_of(learner, task) for learner in (first, second))
    if left.keys() != right.keys() or any(not torch.equal(left[name], right[name]) for name in left):
        raise UnequalError(f"task {task!r} has another module after other tasks")
    return "the module learned (to the last bit)"
