"""Static methods: one PET module and one head for all tasks, trained on and on."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.config import Settings, TaskSettings
from conpet.context import TrainContext
from conpet.cost import meter
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.methods.base import SELECTING, EncodedInputs, Method, Scores, TaskData, TaskUpdate, count
from conpet.methods.replay_batches import ReplayBatches, Trained, TrainingStep
from conpet.modules.adapter import ADAPTER_TENSORS, Adapter
from conpet.modules.logit_cache import LogitCache
from conpet.modules.module import HEAD, PetModule, adapter_artifact
from conpet.modules.optimisation import Schedule, TrainLog, optimise
from conpet.modules.pool import ModulePool
from conpet.modules.training import represented, zero_head
from conpet.readable import Readable
from conpet.state.module_assignment import LABELS, ModuleAssignment, with_labels
from conpet.state.state import ASSIGNMENT, MODULE, STATIC, Names, State, TaskState, assignment_artifact
from conpet.state.statistics import ClassSumsCache, features_of, staying

METHOD = "method"
"""Stem, in that slot, of the tensors a method keeps from one task to the next."""
PER_LABEL = "label."
"""Names of those tensors that have one row for each of the head's labels begin so."""


class StaticMethod(Method, ABC):
    """One PET module and one head over all labels, updated for every task (Static ConPET, Song et al. 2023, 3.2).

    This class is the frame: it grows the head, draws batches (half new, half old where the method replays), trains
    within the task's budget and stores the result. A method says what is minimised, and what it does before and after.
    With the frame alone, a method minimises the cross-entropy over all labels seen.

    Scores of the labels are the softmax of the one head's outputs; there is no selector. A version of a task holds no
    module: going back to another version learns that version's stored examples anew, and what the module has seen of a
    removed task cannot be told apart from the rest.
    """

    unused: ClassVar[frozenset[str]] = SELECTING
    replays: ClassVar[bool] = True
    """Whether half of a batch is old examples."""
    resumable: ClassVar[bool] = True
    """Whether a step's loss depends on weights and step alone. If not, training that was interrupted begins anew."""

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings,
        state: State,
        sums: ClassSumsCache | None = None,
        pool: LogitCache | None = None,
    ) -> None:
        super().__init__(backbone, settings, state, sums)
        self.pool = pool or LogitCache(ModulePool(backbone))
        self.options = self.Options.parse(settings.options)

    @classmethod
    def check_task(cls, settings: Settings, task: TaskSettings) -> None:
        """Raise `ConfigError` if a task asks for a module of its own: there is one for all."""
        own = [name for name, value in task.shape.items() if value != getattr(settings, name)]
        if own:
            raise ConfigError(
                f"{', '.join(own)}: method {cls.name!r} trains one module for all tasks, so a task cannot have its "
                "own; leave it out, or set it for the workspace (`conpet init`)"
            )

    def with_state(self, state: State) -> Self:
        """Return the learner of another state."""
        return type(self)(self.backbone, self.settings, state, self.sums, self.pool)

    # What a method may say

    def before(self, batches: ReplayBatches) -> None:
        """Look at the module as it was left by the tasks before; nothing was trained yet."""

    def loss(self, batches: ReplayBatches, step: TrainingStep) -> Tensor:
        """Return what is minimised at a step, a scalar."""
        logits = batches.head(batches.represent(step))
        return batches.reduced(step, nn.functional.cross_entropy(logits, step.targets, reduction="none"))

    def after_backward(self, batches: ReplayBatches, step: int) -> None:
        """Change the gradients of a step, if the method does."""

    def after(self, batches: ReplayBatches) -> None:
        """Work on what was trained: it will not be trained any more for this task."""

    def extra_parameters(self, batches: ReplayBatches) -> Mapping[str, nn.Parameter]:
        """Return what is trained beside the module and the head, by name."""
        return {}

    def answering(self, batches: ReplayBatches) -> Adapter:
        """Return the module that answers are given with."""
        return batches.module.adapter()

    def readout(self, batches: ReplayBatches) -> nn.Linear:
        """Return the linear map from representations to scores of the labels that answers are given with."""
        return batches.head

    def kept(self, batches: ReplayBatches) -> Mapping[str, Tensor]:
        """Return what the method needs of this task when it learns the next one, but not to answer."""
        return {}

    def kept_with_task(
        self, batches: ReplayBatches, representations: Callable[[], Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return tensors by stem that belong to the task just learned and go with it.

        Args:
            session: The task, trained.
            representations: Computes, once, how the module represents its training examples now `[n, R]`, on the CPU.
        """
        return {}

    def kept_relabelled(
        self, known: TaskState, names: Names, stay: Sequence[int]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what `kept_with_task` kept with a task, for when its labels have other names, or are gone.

        Args:
            known: The task in its active version.
            names: Its labels' new names.
            stay: Rows of the training examples whose label is not gone.
        """
        return {}

    # Answering

    def score(self, readings: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind by the one module; labels of tasks of another kind get -inf."""
        the_one = torch.zeros(count(readings), 1, dtype=torch.int64)
        return Scores(torch.log_softmax(self.units.run(readings, kind, the_one), dim=1))

    @cached_property
    def units(self) -> ModuleAssignment:
        """The one module, and the tasks it serves."""
        return ModuleAssignment(self.state, self.pool)

    # Learning

    def learn(self, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a task within its budget of steps."""
        with context.costs.stage("statistics"):
            (statistics,), shared = self.add_to_statistics([task_data])
        with context.costs.stage("replay"):
            batches = self.batches(task_data, context)
        with context.costs.stage("module"):
            log = self._trained(batches)
            representations = cache(lambda: represented(self.backbone, batches.module, task_data.train))
            with_task = self.kept_with_task(batches, representations)
        beside = {**batches.head_parameters, **self.extra_parameters(batches)}
        readout = self.readout(batches)
        kept = self.kept(batches)
        head = {LABELS: list(batches.labels)}
        more = {METHOD: kept} if kept else {}
        shared |= {STATIC: adapter_artifact(self.answering(batches), readout, head, **more)}
        return TaskUpdate(
            objects={
                MODULE: Artifact(tensors={**statistics, **with_task}),
                ASSIGNMENT: assignment_artifact(STATIC),
            },
            shared=shared,
            parameters=sum(parameter.numel() for parameter in batches.module.parameters.values()),
            head_parameters=sum(parameter.numel() for parameter in beside.values()),
            detail={"steps": log.steps, "final_loss": log.losses[-1]},
            representations=representations,
        )

    def update_shared(
        self, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> Mapping[str, Artifact | None]:
        """Return new shared objects for when `removed` is taken out and `added`, if any, put in its place.

        The head loses the labels of `removed`; the stored examples of `added` are learned anew.
        """
        with context.costs.stage("statistics"):
            shared = self.statistics([removed], [])
        labels = [label for task in self.state.tasks if task.name != removed.name for label in task.labels]
        shared[STATIC] = self.narrowed({label: label for label in labels}) if labels or added else None
        if added is None:
            return shared
        source = next(one for one in context.memory if one.task == added.name)
        task_data = TaskData.of(added, self.settings, source, self.backbone)
        others = replace(context, memory=[one for one in context.memory if one is not source])
        learned = self.with_state(self.state.without(removed.name, shared)).learn(task_data, others)
        return shared | dict(learned.shared) | self.statistics([removed], [features_of(added)])

    def frozen(self) -> Mapping[str, Artifact | None]:
        """Return the shared objects for when the module is not trained any more, by whatever method goes on."""
        if self.last is None or not self.last.has(METHOD):
            return {}
        return {STATIC: with_labels(self.last, {label: label for label in self.last.document(HEAD)[LABELS]})}

    def relabel(self, known: TaskState, names: Names, context: TrainContext) -> TaskUpdate:
        """Return a new version of a task in which labels have other names, or are gone; the head follows."""
        learned = super().relabel(known, names, context)
        labels = {label: names.get(label, label) for task in self.state.tasks for label in task.labels}
        shared = self.narrowed({new: old for old, new in labels.items() if new is not None})
        module = learned.objects[MODULE]
        kept = replace(module, tensors={**module.tensors, **self.kept_relabelled(known, names, staying(known, names))})
        return replace(
            learned,
            objects={MODULE: kept, ASSIGNMENT: assignment_artifact(STATIC)},
            shared={**learned.shared, STATIC: shared},
        )

    def narrowed(self, outputs: Mapping[str, str]) -> Artifact:
        """Return the stored module with a head for some labels alone, each given with its name in the present head."""
        assert self.last is not None, "a task leaves that was never learned"  # noqa: S101
        module, kept = with_labels(self.last, outputs), self.carried(list(outputs.values()))
        return replace(module, tensors={**module.tensors, METHOD: kept}) if kept else module

    # Parts

    def batches(self, task_data: TaskData, context: TrainContext) -> ReplayBatches:
        """Return the task as it is to be trained on: the last module and head, grown; new and drawn old examples."""
        labels = self.labels_with(task_data)
        trained = Trained(self.started(context.seed), self.grown(labels))
        return ReplayBatches.begin(trained, self.settings, task_data, context, labels, replays=self.replays)

    def labels_with(self, task_data: TaskData) -> tuple[str, ...]:
        """Return the labels of all other tasks, then those of the one to be learned."""
        others = [label for task in self.state.tasks if task.name != task_data.task.name for label in task.labels]
        return (*others, *task_data.task.labels)

    @property
    def last(self) -> Readable | None:
        """The stored module, or None before the first task."""
        return self.state.shared.get(STATIC)

    def started(self, seed: int) -> PetModule:
        """Return the module with its last weights, or its first ones, drawn from a seed."""
        module = PetModule(self.backbone, self.settings.for_task({}), seed)
        if self.last is not None:
            module.load(self.last.tensors(ADAPTER_TENSORS))
        return module

    def grown(self, labels: Sequence[str]) -> nn.Linear:
        """Build a head for these labels: rows of the last head where it has them, zeros for new ones."""
        head = zero_head(self.backbone, len(labels))
        if self.last is not None:
            known, last = self.last.document(HEAD)[LABELS], self.last_head(self.last)
            with torch.no_grad():
                head.weight.copy_(_of_labels(last["weight"], known, labels))
                head.bias.copy_(_of_labels(last["bias"], known, labels))
        return head

    def last_head(self, stored: Readable) -> Mapping[str, Tensor]:
        """Return the weight and bias of the head that training goes on from: here the one that answers."""
        return stored.tensors(HEAD)

    def carried(self, labels: Sequence[str]) -> dict[str, Tensor]:
        """Return what the method kept of the tasks before, its rows for these labels: zeros for new ones."""
        if self.last is None or not self.last.has(METHOD):
            return {}
        known = self.last.document(HEAD)[LABELS]
        return {
            name: _of_labels(value, known, labels) if name.startswith(PER_LABEL) else value
            for name, value in self.last.tensors(METHOD).items()
        }

    def _trained(self, batches: ReplayBatches) -> TrainLog:
        self.before(batches)
        batches.module.train()
        settings, context = batches.task_data.settings, batches.context
        log = optimise(
            {**batches.parameters, **self.extra_parameters(batches)},
            lambda step: self.loss(batches, batches.step(step)),
            Schedule(batches.steps, settings.learning_rate, settings.weight_decay, seed=context.seed),
            checkpoint=context.scratch / STATIC if context.scratch and self.resumable and batches.resumable else None,
            on_gradient=lambda step: self.after_backward(batches, step),
            on_step=lambda step: context.progress("module", (step + 1) / batches.steps),
        )
        batches.module.train(False)
        meter().steps += log.steps - log.resumed_at
        self.after(batches)
        return log


def _of_labels(rows: Tensor, known: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Return the rows of `labels` `[L, ...]` out of those of `known` labels; zeros for labels that are not known."""
    row_of = {label: row for row, label in enumerate(known)}
    pairs = [(row, row_of[label]) for row, label in enumerate(labels) if label in row_of]
    found = rows.new_zeros(len(labels), *rows.shape[1:])
    found[[row for row, _ in pairs]] = rows[[row for _, row in pairs]]
    return found
