"""Dynamic ConPET: a module and a head per task, and a selector that finds the task."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import Settings, TaskSettings
from conpet.config.base import flat, nested
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.features.classifiers import LinearDiscriminant, ProjectedRidge
from conpet.features.fitting import fitted
from conpet.fusion import FUSIONS
from conpet.fusion.rules import UNSELECTED, Evidence, Fusion, PaperFusion
from conpet.methods.base import EncodedInputs, Method, Scores, TaskData, TaskUpdate, by_template
from conpet.modules.adapter import ADAPTER_CONFIG
from conpet.modules.logit_cache import LogitCache
from conpet.modules.module import module_artifact
from conpet.modules.optimisation import steps_of
from conpet.modules.pool import ModulePool
from conpet.modules.training import TrainingJob, train_module, train_modules
from conpet.replay.dynamic import draw_by_task
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Rehearsal
from conpet.replay.schedule import OLD_SHARE, divide_budget, rehearse
from conpet.selectors import SELECTORS
from conpet.selectors.base import SELECTOR, Selector, SelectorData, SelectorState
from conpet.state.module_assignment import LABELS, ModuleAssignment, prune_labels, sum_by_module, with_labels
from conpet.state.state import ASSIGNMENT, MODULE, Names, State, TaskState, assignment_artifact
from conpet.state.statistics import (
    ClassSumsCache,
    features_of,
    outputs_of,
    statistics_alone,
)

CALIBRATION = "calibration"


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """One module for several tasks; nothing of it is in force until the store has it.

    Attributes:
        objects: Task to new objects of its active version, by slot.
        shared: New shared objects, by slot.
        state: The state with all of them.
        steps: Optimiser steps taken.
    """

    objects: Mapping[str, Mapping[str, Artifact]]
    shared: Mapping[str, Artifact | None]
    state: State
    steps: int


class DynamicMethod(Method):
    """Dynamic ConPET (Song et al. 2023, section 3.3).

    Per task the selector is updated, then a new module and head are trained; older ones are never touched. An input
    goes through the prefix once; the selector pre-selects `top_k` tasks; their modules run in one pass of the suffix;
    a rule (`conpet.fusion.rules`) makes one ranking over all labels of it.

    Beyond the paper: the selector may be a closed form (no training, no replay), and the calibrated rule makes modules
    comparable and adds the closed form's label scores. What is stored: a module, a head, frozen features and examples
    per task; one Gram matrix; the weights of the rule.
    """

    name = "dynamic"
    module_per_task: ClassVar[bool] = True

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

    def with_state(self, state: State) -> Self:
        """Return the learner of another state; modules in memory stay there."""
        return type(self)(self.backbone, self.settings, state, self.sums, self.pool)

    # What is known

    @cached_property
    def selector(self) -> Selector:
        """The selector in this state."""
        tasks = self.state.tasks
        state = SelectorState(
            tuple(task.name for task in tasks),
            tuple(len(task.labels) for task in tasks),
            self.closed,
            self.state.shared.get(SELECTOR),
        )
        selector: Selector = SELECTORS[self.settings.selector.name](self.backbone, self.settings, self.pool.pool, state)
        return selector

    @cached_property
    def rule(self) -> Fusion:
        """The rule in this state."""
        rule: type[Fusion] = FUSIONS[self.settings.fusion.name]
        stored = self.state.shared.get(CALIBRATION)
        return rule(**stored.document(CALIBRATION)) if stored else rule()

    @cached_property
    def units(self) -> ModuleAssignment:
        """The modules in this state, and whom they serve."""
        return ModuleAssignment(self.state, self.pool)

    @cached_property
    def _unit_of_label(self) -> Tensor:
        return self.units.of_task[self.owner]

    # Answering

    def score(self, readings: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; labels of tasks of another kind get -inf."""
        evidence, by_selector = self._evidence(readings, kind)
        units = _likeliest(evidence.tasks, self.settings.selector.top_k)
        # Of each selected unit the likeliest task, which is the only one for most.
        of_unit = self.units.of_task == units.unsqueeze(2)
        selected = by_selector.unsqueeze(1).masked_fill(~of_unit, -torch.inf).argmax(dim=2)
        return Scores(self.rule.log_probabilities(evidence), by_selector, selected)

    def within_task(self, readings: EncodedInputs, owners: Tensor) -> Tensor:
        """Return log-probabilities over the labels `[n, L]` given each example's true task `[n]` (others -inf)."""
        kind = self.state.tasks[int(owners[0])].kind
        logits = self.units.run(readings, kind, self.units.of_task[owners].unsqueeze(1))
        tasks = torch.zeros(len(owners), len(self.units.all))
        evidence = Evidence(*self._closed_scores(readings), tasks, logits, self._unit_of_label)
        scores = self.rule.log_probabilities(evidence)
        others = self.owner.unsqueeze(0) != owners.unsqueeze(1)
        return torch.log_softmax(scores.masked_fill(others, -torch.inf), dim=1)

    def _evidence(self, readings: EncodedInputs, kind: Kind) -> tuple[Evidence, Tensor]:
        """Return what is known of n examples, its tasks being units, and the selector's log-probabilities `[n, T]`."""
        by_selector = self._selected_by(readings, kind)
        units = sum_by_module(by_selector, self.units.of_task)
        discriminant, regression = self._closed_scores(readings)
        if self.other_kind[kind].any():
            impossible = self.other_kind[kind][self.owner]
            discriminant, regression = (one.masked_fill(impossible, -torch.inf) for one in (discriminant, regression))
        logits = self.units.run(readings, kind, _likeliest(units, self.settings.selector.top_k))
        return Evidence(discriminant, regression, units, logits, self._unit_of_label), by_selector

    def _selected_by(self, readings: EncodedInputs, kind: Kind) -> Tensor:
        """Return the selector's log-probabilities `[n, T]`, -inf for tasks of another kind."""
        templates = [task.template for task in self.state.tasks]
        by_selector = by_template(templates, readings, self.selector.log_probabilities)
        return torch.log_softmax(by_selector.masked_fill(self.other_kind[kind], -torch.inf), dim=1)

    def _closed_scores(self, readings: EncodedInputs) -> tuple[Tensor, Tensor]:
        """Return LDA's and the regression's scores of all labels `[n, L]`."""
        discriminant = fitted(self.closed, LinearDiscriminant.name)
        regression = fitted(self.closed, ProjectedRidge.name)
        return (
            by_template(self.label_templates, readings, lambda states: discriminant.scores(states.features)),
            by_template(self.label_templates, readings, lambda states: regression.scores(states.features)),
        )

    # Learning

    def learn(self, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a task: statistics, selector, module and head, calibration."""
        return self.learn_batch([task_data], [context])[0]

    @property
    def batch_blocker(self) -> str | None:
        """Why tasks cannot be learned together: a selector or modules that are trained one on the other."""
        if self.selector.needs_replay:
            return f"selector={self.settings.selector.name} is trained on one task after the other"
        if self._needs_competing_logits:
            return f"fusion={PaperFusion.name} with top_k={self.settings.selector.top_k} trains a module beside those of older tasks"
        return None

    def learn_batch(self, tasks_data: Sequence[TaskData], contexts: Sequence[TrainContext]) -> list[TaskUpdate]:
        """Learn tasks: statistics, selector, modules and heads (small ones at once), one calibration over all."""
        context, tasks = contexts[0], [task_data.task for task_data in tasks_data]
        with context.costs.stage("statistics"):
            statistics, shared = self.add_to_statistics(tasks_data)
        with context.costs.stage("selector"):
            for task_data in tasks_data:
                selector = self.selector.learn(self._selector_lesson(task_data, context))
                shared |= {SELECTOR: selector} if selector else {}
        with context.costs.stage("module"):
            known_so_far = [{MODULE: Artifact(tensors=one)} for one in statistics]
            informed = self.with_state(self.state.after_all(tasks, known_so_far, shared))
            trained = train_modules(
                self.backbone,
                [informed.job(task_data, own.seed) for task_data, own in zip(tasks_data, contexts, strict=True)],
                checkpoint=context.scratch / MODULE if context.scratch else None,
                on_step=lambda done, steps: context.progress("module", done / steps),
            )
        objects = [
            {MODULE: module_artifact(one.module, one.head, {LABELS: list(task.labels)}, **tensors)}
            for one, task, tensors in zip(trained, tasks, statistics, strict=True)
        ]
        state = self.state.after_all(tasks, objects, shared)
        shared |= self.with_state(state).calibrated(context, [task_data.source for task_data in tasks_data])
        return [
            TaskUpdate(
                objects=own,
                shared=shared if task is tasks[-1] else {},
                parameters=sum(parameter.numel() for parameter in one.module.parameters.values()),
                head_parameters=sum(parameter.numel() for parameter in one.head.parameters()),
                detail={"steps": one.log.steps, "final_loss": one.log.losses[-1]},
            )
            for task, own, one in zip(tasks, objects, trained, strict=True)
        ]

    def job(self, task_data: TaskData, seed: int) -> TrainingJob:
        """Return what a module learns in a lesson, given this state, in which its task is known."""
        task = task_data.task
        name = f"task {task.name!r}"
        return TrainingJob(
            task_data.train,
            task_data.targets,
            len(task.labels),
            task_data.settings,
            seed,
            self.competing_logits(task_data),
            name,
        )

    def update_shared(
        self, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> Mapping[str, Artifact | None]:
        """Return new shared objects for when `removed` is taken out and `added`, if any, put in its place.

        Raises:
            ConfigError: `added` has no module: a shared one served it that was trained on since (`conpet upgrade`).
        """
        if added is not None and added.unit is None and not added.objects[MODULE].has(ADAPTER_CONFIG):
            raise ConfigError(
                f"version {added.version} of task {added.name!r} has no module any more: it is older than the "
                "workspace's upgrade, and the one module of that time was trained on; learn its data again instead"
            )
        with context.costs.stage("statistics"):
            shared = self.statistics([removed], [features_of(added)] if added else [])
        if added is None and SELECTOR in self.state.shared:
            shared[SELECTOR] = self.selector.forget(removed.name)
        state = self.state.followed_by(added, shared) if added else self.state.without(removed.name, shared)
        revised = self.with_state(state)
        return shared | (revised.calibrated(context) if revised.state.tasks else {CALIBRATION: None})

    def relabel(self, known: TaskState, names: Names, context: TrainContext) -> TaskUpdate:
        """Return a new version of a task in which labels have other names, or are gone; the head follows.

        A module that serves other tasks too stays as it is, and the version notes which output stands for which label.
        """
        learned = super().relabel(known, names, context)
        outputs = {
            new: output
            for label, output in zip(known.labels, known.outputs, strict=True)
            if (new := names.get(label, label)) is not None
        }
        objects = dict(learned.objects)
        if known.unit is not None:
            objects[ASSIGNMENT] = assignment_artifact(
                known.unit, {new: old for new, old in outputs.items() if new != old}
            )
        else:
            module = with_labels(known.objects[MODULE], dict(sorted(outputs.items())))
            objects[MODULE] = replace(module, tensors={**module.tensors, **objects[MODULE].tensors})
        shared = dict(learned.shared)
        if shared:  # examples went
            shared |= self.with_state(self.state.after(known.renamed(names), objects, shared)).calibrated(context)
        return replace(learned, objects=objects, shared=shared)

    def merged(self, names: Collection[str], slot: str, context: TrainContext) -> Merged:
        """Train one module for several tasks, in place of those that serve them now.

        It is trained as a task's own: by cross-entropy over all their labels, on all their stored examples, for as many
        steps as they took together. Settings the tasks have in common count, else those of the workspace.

        Args:
            names: Names of the tasks.
            slot: The shared slot it is to lie in.
            work: Past examples, those of these tasks among them.
        """
        tasks = [task for task in self.state.tasks if task.name in names]
        sources = {one.task: one for one in context.memory}
        labels = [label for task in tasks for label in task.labels]
        answers = [label for task in tasks for label in sources[task.name].labels(Subset.TRAIN)]
        states = States.concatenated([sources[task.name].states(self.backbone, Subset.TRAIN) for task in tasks])
        with context.costs.stage("module"):
            trained = train_module(
                self.backbone,
                states,
                outputs_of(answers, labels),
                len(labels),
                self._common_settings(tasks),
                context.seed,
                checkpoint=context.scratch / slot if context.scratch else None,
                on_step=lambda done, steps: context.progress("module", done / steps),
            )
        objects = {task.name: {MODULE: statistics_alone(task), ASSIGNMENT: assignment_artifact(slot)} for task in tasks}
        shared: dict[str, Artifact | None] = {slot: module_artifact(trained.module, trained.head, {LABELS: labels})}
        state = self.state.sharing(shared)
        for task in tasks:
            state = state.after(task, objects[task.name], {})
        shared |= self.with_state(state).calibrated(context)
        return Merged(objects, shared, state.sharing(shared), trained.log.steps)

    def _common_settings(self, tasks: Sequence[TaskState]) -> TaskSettings:
        """Return the settings that tasks have in common, with as many steps as they took together."""
        own = [flat(nested(task.settings)) for task in tasks]
        common = {key: value for key, value in own[0].items() if all(other.get(key) == value for other in own[1:])}
        steps = sum(steps_of(len(features_of(task)), self.settings.for_task(task.settings).training) for task in tasks)
        return self.settings.for_task(common | {"training.max_steps": steps, "training.epochs": steps})

    def prune_labels(self, before: Sequence[TaskState], after: Sequence[TaskState]) -> Mapping[str, Artifact | None]:
        """Return the shared modules that serve fewer labels than before, without those labels; None: it serves none."""
        return prune_labels(self.state.shared, before, after)

    def _selector_lesson(self, task_data: TaskData, context: TrainContext) -> SelectorData:
        rehearsal = self._rehearsal(task_data, context) if self.selector.needs_replay else None
        return SelectorData(task_data.task.name, task_data.train, rehearsal, task_data.settings, context)

    def _rehearsal(self, task_data: TaskData, context: TrainContext) -> Rehearsal | None:
        """Prepare the old half of what the selector learns from."""
        _, replayed = divide_budget(task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=True)
        return rehearse(
            [one for one in context.memory if one.task != task_data.task.name],
            self.backbone,
            schedule=self.settings.replay.schedule,
            steps=self.selector.replay_steps,
            per_step=replayed,
            seed=context.seed,
        )

    @property
    def _needs_competing_logits(self) -> bool:
        """Whether modules are trained beside those of older tasks."""
        return self.settings.fusion.name == PaperFusion.name and self.settings.selector.top_k > 1

    def competing_logits(self, task_data: TaskData) -> Tensor | None:
        """Return the logits `[n, O]` of older tasks' labels beside which a module learns by the paper's rule at k > 1.

        Teacher forcing: the lesson's task is always among the k selected; if the selector left it out, it takes the
        last one's place. Labels of tasks not selected get -100.
        """
        kind, template = task_data.task.kind, task_data.task.template
        others = [task for task in self.state.tasks if task.kind is kind and task.name != task_data.task.name]
        if not self._needs_competing_logits or not others:
            return None
        templates = {task.template for task in others} - {template}
        readings = {template: task_data.train}
        readings |= {other: task_data.source.states(self.backbone, Subset.TRAIN, template=other) for other in templates}
        own = [task.name for task in self.state.tasks].index(task_data.task.name)
        ranked = self._selected_by(readings, kind)
        ranked[:, own] = -torch.inf
        units = sum_by_module(ranked, self.units.of_task)
        logits = self.units.run(readings, kind, _likeliest(units, self.settings.selector.top_k - 1))
        return logits[:, self.owner != own].clamp(min=UNSELECTED)

    def calibrated(self, context: TrainContext, newest: Sequence[StoredExamples] = ()) -> dict[str, Artifact | None]:
        """Fit the rule's weights on held-out examples: half of the newest tasks, half of old ones, within the budget.

        Of each of the newest tasks it takes one at least, however many they are.
        """
        with context.costs.stage("calibration"):
            names = {one.task for one in newest}
            old = [one for one in context.memory if one.task not in names]
            of_new, of_old = divide_budget(
                self.settings.fusion.calibration_examples, old_share=OLD_SHARE if newest else 1.0, has_memory=bool(old)
            )
            drawn = draw_by_task(old, Subset.VALIDATION, of_old, context.seed)
            for one in newest:
                count, most = one.count(Subset.VALIDATION), max(1, of_new // len(newest))
                drawn.append((one, random.Random(context.seed).sample(range(count), min(most, count))))  # noqa: S311
            return {CALIBRATION: Artifact(documents={CALIBRATION: self._fitted(drawn).to_json()})}

    def _fitted(self, drawn: Sequence[tuple[StoredExamples, list[int]]]) -> Fusion:
        """Fit a rule on held-out examples of some tasks."""
        column = {label: index for index, label in enumerate(self.labels)}
        parts, targets = [], []
        for kind in Kind:
            some = [(source, positions) for source, positions in drawn if source.kind is kind and positions]
            if not some:
                continue
            parts.append(self._evidence(self.encode_stored(some, Subset.VALIDATION), kind)[0])
            for source, positions in some:
                labels = source.labels(Subset.VALIDATION)
                targets += [column[labels[position]] for position in positions]
        rule: Fusion = FUSIONS[self.settings.fusion.name]()
        return rule.fitted(Evidence.joined(parts), torch.tensor(targets)) if parts else rule


def _likeliest(units: Tensor, most: int) -> Tensor:
    """Return the indices of the likeliest units by log-probability `[n, U]`, of those that can be meant: `[n, k]`."""
    possible = int((units > -torch.inf).any(dim=0).sum())
    return units.topk(min(most, possible), dim=1).indices
