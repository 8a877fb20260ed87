"""Static methods: one PET module and one head for all tasks, trained further with every task."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, ObjectReader
from conpet.backbone.backbone import Backbone
from conpet.config import Settings, TaskSettings
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.heads.base import HEAD
from conpet.heads.labels import LABELS, LabelHead, label_document, with_labels, zero_head
from conpet.methods.base import Method, Scores, TaskData
from conpet.methods.replay_batches import ModuleWithHead, ReplayBatches, TrainingStep
from conpet.modules.adapter import ADAPTER_TENSORS, Adapter
from conpet.modules.logit_cache import LogitCache
from conpet.modules.module import PetModule, module_artifact
from conpet.modules.optimisation import Schedule, TrainLog, optimise
from conpet.modules.pool import ModulePool
from conpet.modules.training import represented
from conpet.state.inputs import EncodedInputs, count
from conpet.state.module_assignment import ModuleAssignment
from conpet.state.slots import ASSIGNMENT, MODULE, STATIC, assignment_artifact
from conpet.state.state import Names, State, TaskState
from conpet.state.update import SharedUpdate, TaskUpdate

METHOD = "method"
"""Stem, in the module's object, of the tensors that a method carries from one task to the next."""
PER_LABEL = "label."
"""Prefix of the names of carried tensors that have one row for each label of the head."""


class StaticMethod(Method, ABC):
    """One PET module and one head over all labels, trained with every task (Static ConPET, Song et al. 2023, 3.2).

    This base class grows the head, draws batches (half new, half old if the method replays), trains within the task's
    budget and stores the result. A method defines the loss, and its work before and after training. The default loss is
    the cross-entropy over all labels seen.

    Labels are scored by the softmax of the one head; there is no selector. A version of a task has no module: a
    rollback trains on the stored examples of the version again, and removing a task does not untrain the module.
    """

    sections: ClassVar[frozenset[str]] = frozenset({"module", "head", "training", "replay"})
    replays: ClassVar[bool] = True
    """Whether half of each batch is old examples."""
    resumable: ClassVar[bool] = True
    """Whether a step's loss depends only on the weights and the step. If not, interrupted training restarts."""

    def __init__(self, backbone: Backbone, settings: Settings, cache: LogitCache | None = None) -> None:
        super().__init__(backbone, settings)
        self.cache = cache or LogitCache(ModulePool(backbone))

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` if a task sets its own module or head: all tasks share one."""
        super().check_task(settings, task)
        shared_module, task_module = settings.module, task.module
        different = [name for name, value in task_module.shape.items() if value != shared_module.shape.get(name)]
        if different:
            raise ConfigError(
                f"{', '.join(f'module.{name}' for name in different)}: method {cls.name!r} trains one module for all "
                "tasks, so a task cannot set its own; remove the setting, or set it for a new workspace (`conpet init`)"
            )

    # Hooks for methods

    def before_training(self, batches: ReplayBatches) -> None:
        """Prepare `batches.method_data` from the module before this training."""

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return the loss of a step, a scalar."""
        logits = batches.head(batches.represent(step))
        return nn.functional.cross_entropy(logits, step.targets, reduction="none").mean()

    def after_backward(self, batches: ReplayBatches, step: int) -> None:
        """Change the gradients of a step; by default they stay unchanged."""

    def after_training(self, batches: ReplayBatches) -> None:
        """Use the trained module and head, for example to update `batches.method_data`."""

    def extra_parameters(self, batches: ReplayBatches) -> Mapping[str, nn.Parameter]:
        """Return parameters to train in addition to those of module and head, by name."""
        return {}

    def answering_adapter(self, batches: ReplayBatches) -> Adapter:
        """Return the adapter to store and answer with."""
        return batches.module.adapter()

    def answering_head(self, batches: ReplayBatches) -> nn.Linear:
        """Return the head to store and answer with, a linear map from representations to label scores."""
        return batches.head

    def keep(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return the tensors that the method needs to learn the next task but not to answer."""
        return {}

    def keep_with_task(
        self, batches: ReplayBatches, representations: Callable[[], Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return tensors, by stem, to store with the version just learned.

        Args:
            batches: The task after training.
            representations: Computes, once, the trained module's representations of the training examples `[n, R]`, on
                the CPU.
        """
        return {}

    def relabel_kept(self, task: TaskState, names: Names, rows: Sequence[int]) -> Mapping[str, Mapping[str, Tensor]]:
        """Return the tensors of `keep_with_task` after labels of the task are renamed or removed.

        Args:
            task: The task in its active version.
            names: New names of its labels.
            rows: Rows of the training examples that remain.
        """
        return {}

    def initial_module(self, state: State, seed: int) -> PetModule:
        """Return the module that training starts from: the stored one, or a new one drawn from the seed."""
        module = PetModule(self.backbone, self.settings.for_task({}), seed)
        if (stored := stored_module(state)) is not None:
            module.load(stored.tensors(ADAPTER_TENSORS))
        return module

    def trained_head(self, stored: ObjectReader) -> Mapping[str, Tensor]:
        """Return weight and bias of the head that training continues from; by default the stored head."""
        return stored.tensors(HEAD)

    # Answering

    def score(self, state: State, inputs: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind by the shared module; labels of tasks of another kind get -inf."""
        first_module = torch.zeros(count(inputs), 1, dtype=torch.int64)
        logits = self.modules(state).run(inputs, kind, first_module)
        possible = logits.masked_fill(state.impossible(kind), -torch.inf)
        return Scores(torch.log_softmax(possible, dim=1), ran=possible > -torch.inf)

    def modules(self, state: State) -> ModuleAssignment:
        """Return the shared module and the tasks it serves."""
        return state.fitted("modules", lambda: ModuleAssignment(state, self.cache))

    # Learning

    def learn_task(self, state: State, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a task within its budget of steps."""
        with context.costs.stage("statistics"):
            (statistics,), update = self.add_to_statistics(state, [task_data])
        with context.costs.stage("replay"):
            batches = self.batches(state, task_data, context)
        with context.costs.stage("module"):
            log = self._train(batches)
            representations = cache(lambda: represented(self.backbone, batches.module, task_data.train))
            with_task = self.keep_with_task(batches, representations)
        heads = {**batches.head_parameters, **self.extra_parameters(batches)}
        carried = self.keep(batches)
        module = module_artifact(
            self.answering_adapter(batches),
            LabelHead().tensors(self.answering_head(batches)),
            label_document(batches.labels),
            **({METHOD: carried} if carried else {}),
        )
        return TaskUpdate(
            task_data.task,
            objects={
                MODULE: Artifact(tensors={**statistics, **with_task}),
                ASSIGNMENT: assignment_artifact(STATIC),
            },
            shared={**update.shared, STATIC: module},
            parameters=sum(parameter.numel() for parameter in batches.module.parameters.values()),
            head_parameters=sum(parameter.numel() for parameter in heads.values()),
            detail={"steps": log.steps, "final_loss": log.losses[-1]},
            representations=representations,
            fits=update.fits,
        )

    def update_shared(
        self, state: State, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> SharedUpdate:
        """Return the shared objects of the state in which `added`, if any, replaces `removed`.

        The labels of `removed` are dropped from the head; the stored examples of `added` are learned again.
        """
        with context.costs.stage("statistics"):
            update = self.updated_statistics(state, [removed], [])
        labels = [label for task in state.tasks if task.name != removed.name for label in task.labels]
        kept = self.with_head_for(state, {label: label for label in labels}) if labels or added else None
        update = update.plus({STATIC: kept})
        if added is None:
            return update
        source = next(source for source in context.memory if source.task == added.name)
        task_data = TaskData.of(added, self.settings, source, self.backbone)
        others = replace(context, memory=[other for other in context.memory if other is not source])
        learned = self.learn_task(state.without(removed.name, update), task_data, others)
        moved = self.updated_statistics(state, [removed], [added])
        return SharedUpdate({**learned.shared, **moved.shared}, moved.fits)

    def freeze(self, state: State) -> Mapping[str, Artifact | None]:
        """Return the shared objects of a module that is not trained further: without the carried tensors."""
        stored = stored_module(state)
        if stored is None or not stored.has(METHOD):
            return {}
        return {STATIC: with_labels(stored, {label: label for label in stored.document(HEAD)[LABELS]})}

    def reduce(
        self, state: State, task: TaskState, names: Names, stay: Sequence[int], context: TrainContext
    ) -> TaskUpdate:
        """Return a new version of a task with some of its training examples; labels also change in the head."""
        update = super().reduce(state, task, names, stay, context)
        labels = {label: names.get(label, label) for known in state.tasks for label in known.labels}
        shared = self.with_head_for(state, {new: old for old, new in labels.items() if new is not None})
        module = update.objects[MODULE]
        relabelled = self.relabel_kept(task, names, stay)
        module = replace(module, tensors={**module.tensors, **relabelled})
        objects = {MODULE: module, ASSIGNMENT: assignment_artifact(STATIC)}
        return replace(update, objects=objects, shared={**update.shared, STATIC: shared})

    def with_head_for(self, state: State, outputs: Mapping[str, str]) -> Artifact:
        """Return the stored module with a head for these labels: new name to name in the present head."""
        stored = stored_module(state)
        assert stored is not None, "a task was learned before, so a module is stored"  # noqa: S101
        module, carried = with_labels(stored, outputs), carried_tensors(state, list(outputs.values()))
        return replace(module, tensors={**module.tensors, METHOD: carried}) if carried else module

    # Preparing the training

    def batches(self, state: State, task_data: TaskData, context: TrainContext) -> ReplayBatches:
        """Return the module, the head grown for the new labels, and batches of new and drawn old examples."""
        labels = labels_with(state, task_data)
        trained = ModuleWithHead(self.initial_module(state, context.seed), self.grow_head(state, labels))
        return ReplayBatches.begin(trained, self.settings, state, task_data, context, labels, replays=self.replays)

    def grow_head(self, state: State, labels: Sequence[str]) -> nn.Linear:
        """Build a head for these labels, with the stored rows of known labels and zeros for new ones."""
        head = zero_head(self.backbone.representation_size, len(labels), self.backbone.device)
        if (stored := stored_module(state)) is not None:
            known, last = stored.document(HEAD)[LABELS], self.trained_head(stored)
            with torch.no_grad():
                head.weight.copy_(_of_labels(last["weight"], known, labels))
                head.bias.copy_(_of_labels(last["bias"], known, labels))
        return head

    def _train(self, batches: ReplayBatches) -> TrainLog:
        self.before_training(batches)
        batches.module.train()
        training, context = batches.task_data.settings.training, batches.context
        log = optimise(
            {**batches.parameters, **self.extra_parameters(batches)},
            lambda step: self.loss(batches, batches.step(step)),
            Schedule(batches.steps, training.learning_rate, training.weight_decay, seed=context.seed),
            checkpoint=context.scratch / STATIC if context.scratch and self.resumable else None,
            on_gradient=lambda step: self.after_backward(batches, step),
            on_step=lambda step: context.progress("module", (step + 1) / batches.steps),
        )
        batches.module.train(False)
        self.after_training(batches)
        return log


def stored_module(state: State) -> ObjectReader | None:
    """Return the stored module of a static method, or None before the first task."""
    return state.shared.get(STATIC)


def labels_with(state: State, task_data: TaskData) -> tuple[str, ...]:
    """Return the labels of all other tasks, then those of the task to learn."""
    others = [label for task in state.tasks if task.name != task_data.task.name for label in task.labels]
    return (*others, *task_data.task.labels)


def carried_tensors(state: State, labels: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors that a method carried over, with rows for these labels; rows of new labels are 0."""
    stored = stored_module(state)
    if stored is None or not stored.has(METHOD):
        return {}
    known = stored.document(HEAD)[LABELS]
    return {
        name: _of_labels(value, known, labels) if name.startswith(PER_LABEL) else value
        for name, value in stored.tensors(METHOD).items()
    }


def _of_labels(rows: Tensor, known: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Return one row for each of `labels` `[L, ...]`, from the `rows` of the `known` labels; 0 for new labels."""
    row_of = {label: row for row, label in enumerate(known)}
    pairs = [(row, row_of[label]) for row, label in enumerate(labels) if label in row_of]
    selected = rows.new_zeros(len(labels), *rows.shape[1:])
    selected[[row for row, _ in pairs]] = rows[[row for _, row in pairs]]
    return selected
