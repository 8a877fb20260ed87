"""Dynamic ConPET: a module and a head for each task, and a selector that finds the task of an input."""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import Settings, TaskSettings
from conpet.config.base import flat, nested
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.errors import ConfigError, DamagedModuleError, plural
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.fitted import fitted_classifier
from conpet.features.logistic import LogisticRegression
from conpet.fusion import FUSIONS
from conpet.fusion.base import UNSELECTED, Evidence, Fusion
from conpet.fusion.paper import PaperFusion
from conpet.heads.base import Answer
from conpet.heads.labels import with_labels
from conpet.heads.stored import head_document
from conpet.methods.base import Method, Rebuilt, Scores, TaskData
from conpet.modules.adapter import ADAPTER_CONFIG
from conpet.modules.logit_cache import LogitCache
from conpet.modules.optimisation import steps_of
from conpet.modules.pool import ModulePool
from conpet.modules.training import TrainingJob, train_module, train_modules
from conpet.replay.dynamic import draw_by_task
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.rehearsal import Rehearsal
from conpet.replay.schedule import OLD_SHARE, divide_budget, rehearse
from conpet.selectors import SELECTORS
from conpet.selectors.base import SELECTOR, Selector, SelectorData, SelectorState
from conpet.state.inputs import EncodedInputs, by_template
from conpet.state.module_assignment import ModuleAssignment, prune_labels, sum_by_module
from conpet.state.slots import ASSIGNMENT, CONSOLIDATED, MODULE, assignment_artifact
from conpet.state.state import OF_FEATURES, SELECTOR_FIT, Names, State, TaskState
from conpet.state.statistics import features_of, statistics_alone
from conpet.state.update import SharedUpdate, TaskUpdate

CALIBRATION = "calibration"
"""Shared slot of the fusion's fitted weights."""

CLASSIFIERS_FUSED = (LinearDiscriminant.name, LogisticRegression.name)
"""Classifiers of the frozen features that the fusion reads, in the order of `Evidence`."""


_Drawn = Sequence[tuple[StoredExamples, list[int]]]
"""Tasks with rows of one of their subsets."""


class DynamicMethod(Method):
    """Dynamic ConPET (Song et al. 2023, section 3.3).

    Each task updates the selector and trains a new module and head; older modules never change. An input goes through
    the prefix once. The selector pre-selects `top_k` tasks, their modules run in one pass through the suffix, and the
    fusion (`conpet.fusion`) combines all scores into one ranking over all labels.

    Beyond the paper: the selector may read classifiers of the frozen features (no replay through the backbone), and the
    calibrated fusion puts the scores of modules on one scale and adds those of these classifiers. Stored: a module, a
    head, frozen features and examples for each task; one Gram matrix; the weights of the logistic regression and of the
    fusion.
    """

    name = "dynamic"
    module_per_task: ClassVar[bool] = True
    consolidates: ClassVar[bool] = True
    refits: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, settings: Settings, cache: LogitCache | None = None) -> None:
        super().__init__(backbone, settings)
        self.cache = cache or LogitCache(ModulePool(backbone))

    # Fitted from a state

    def selector(self, state: State) -> Selector:
        """Return the selector of a state."""
        return state.fitted(SELECTOR_FIT, lambda: self._selector(state))

    def _selector(self, state: State) -> Selector:
        known = SelectorState(
            tuple(task.name for task in state.tasks),
            tuple(len(task.classes) for task in state.tasks),
            self.statistics(state),
            state.shared.get(SELECTOR),
        )
        selector: Selector = SELECTORS[self.settings.selector.name](
            self.backbone, self.settings, self.cache.pool, known
        )
        return selector

    def fusion(self, state: State) -> Fusion:
        """Return the fusion of a state with its stored weights."""

        def stored() -> Fusion:
            fusion: type[Fusion] = FUSIONS[self.settings.fusion.name]
            calibration = state.shared.get(CALIBRATION)
            return fusion(config=self.settings.fusion, **(calibration.document(CALIBRATION) if calibration else {}))

        return state.fitted("fusion", stored)

    def modules(self, state: State) -> ModuleAssignment:
        """Return the modules of a state, and which tasks each serves."""
        return state.fitted("modules", lambda: ModuleAssignment(state, self.cache))

    # Answering

    def score(self, state: State, inputs: EncodedInputs, kind: Kind) -> Scores:
        """Score n examples of one kind; classes of tasks of another kind get -inf."""
        evidence, by_selector = self._evidence(state, inputs, kind, where_needed=True)
        chosen = _likeliest(evidence.tasks, self.settings.selector.top_k)
        # The likeliest task of each selected module; most modules serve only one.
        of_module = self.modules(state).of_task == chosen.unsqueeze(2)
        selected = by_selector.unsqueeze(1).masked_fill(~of_module, -torch.inf).argmax(dim=2)
        return Scores(self.fusion(state).log_probabilities(evidence), by_selector, selected, evidence.ran)

    def prepare(self, state: State) -> None:
        """Fit selector, classifiers, fusion and module assignment."""
        super().prepare(state)
        if state.tasks:
            answering = state.refitted
            self.selector(answering)
            self.fusion(answering)
            self.modules(answering)
            for name in CLASSIFIERS_FUSED:
                fitted_classifier(self.statistics(answering), name)

    def within_task(self, state: State, inputs: EncodedInputs, owners: Tensor) -> Tensor:
        """Return log-probabilities over the classes `[n, C]` given each example's true task `[n]` (others -inf)."""
        kind, modules = state.tasks[int(owners[0])].kind, self.modules(state)
        logits = modules.run_intact(inputs, kind, modules.of_task[owners].unsqueeze(1))
        tasks = torch.zeros(len(owners), len(modules.modules), dtype=torch.float32)
        evidence = Evidence(*self._classifier_scores(state, inputs), tasks, logits, modules.of_task[state.owner])
        scores = self.fusion(state).log_probabilities(evidence)
        others = state.owner.unsqueeze(0) != owners.unsqueeze(1)
        return torch.log_softmax(scores.masked_fill(others, -torch.inf), dim=1)

    def answers(self, state: State, inputs: EncodedInputs, rows: Sequence[int], task: int) -> list[Answer]:
        """Return what the head of a task answers for some rows of the inputs."""
        return self.modules(state).answers(inputs, rows, task)

    def _evidence(
        self, state: State, inputs: EncodedInputs, kind: Kind, *, where_needed: bool = False
    ) -> tuple[Evidence, Tensor]:
        """Return the evidence on n examples, by module, and the selector's log-probabilities of tasks `[n, T]`.

        Args:
            state: The state.
            inputs: The examples.
            kind: Their kind.
            where_needed: Whether to run no module on examples that the fusion decides without one.

        Raises:
            DamagedModuleError: The module of the likeliest task of some examples is damaged.
        """
        modules = self.modules(state)
        by_selector = self._selected(state, inputs, kind)
        by_module = sum_by_module(by_selector, modules.of_task)
        classifiers = self._classifier_scores(state, inputs)
        if state.other_kind[kind].any():
            impossible = state.impossible(kind)
            lda, logistic = (scores.masked_fill(impossible, -torch.inf) for scores in classifiers)
            classifiers = lda, logistic
        without = torch.full_like(classifiers[0], -torch.inf)
        evidence = Evidence(*classifiers, by_module, without, modules.of_task[state.owner])
        wanted = _likeliest(by_module, self.settings.selector.top_k)
        if where_needed:
            wanted = wanted.masked_fill(self.fusion(state).decided(evidence).unsqueeze(1), -1)
        return replace(evidence, modules=modules.run_intact(inputs, kind, wanted)), by_selector

    def _selected(self, state: State, inputs: EncodedInputs, kind: Kind) -> Tensor:
        """Return the selector's log-probabilities `[n, T]`, -inf for tasks of another kind."""
        templates = [task.template for task in state.tasks]
        by_selector = by_template(templates, inputs, self.selector(state).log_probabilities)
        return torch.log_softmax(by_selector.masked_fill(state.other_kind[kind], -torch.inf), dim=1)

    def _classifier_scores(self, state: State, inputs: EncodedInputs) -> tuple[Tensor, Tensor]:
        """Return the scores of the classifiers `CLASSIFIERS_FUSED` for all classes, each `[n, C]`."""
        statistics = self.statistics(state)

        def scores(name: str) -> Tensor:
            classifier = fitted_classifier(statistics, name)
            return by_template(state.class_templates, inputs, lambda states: classifier.scores(states.features))

        lda, logistic = map(scores, CLASSIFIERS_FUSED)
        return lda, logistic

    # Learning

    def learn_task(self, state: State, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        """Learn a task: update statistics and selector, train module and head, calibrate the fusion."""
        return self.learn_batch(state, [task_data], [context])[0]

    def batch_blocker(self, state: State) -> str | None:
        """Return why tasks cannot be learned in one batch: selector or modules are trained against older tasks."""
        if SELECTORS[self.settings.selector.name].needs_replay:
            return f"selector.name={self.settings.selector.name} is trained on one task after another"
        if self._modules_compete:
            return (
                f"fusion.name={PaperFusion.name} with selector.top_k={self.settings.selector.top_k} trains a module in "
                "competition with those of older tasks"
            )
        return None

    def learn_batch(
        self, state: State, batch: Sequence[TaskData], contexts: Sequence[TrainContext]
    ) -> list[TaskUpdate]:
        """Learn tasks as `learn_task` does; small modules share training passes, and the fusion is calibrated once."""
        context = contexts[0]
        with context.costs.stage("statistics"):
            tensors, statistics = self.add_to_statistics(state, batch)
        shared = dict(statistics.shared)
        with context.costs.stage("selector"):
            for data in batch:
                selector = self.selector(state).learn(self._selector_data(state, data, context))
                shared |= {SELECTOR: selector} if selector else {}
        with context.costs.stage("module"):
            jobs = [
                self.training_job(state, data, task_context.seed, SharedUpdate(shared, statistics.fits), stored)
                for data, task_context, stored in zip(batch, contexts, tensors, strict=True)
            ]
            trained = train_modules(
                self.backbone,
                jobs,
                checkpoint=context.scratch / MODULE if context.scratch else None,
                on_step=lambda done, steps: context.progress("module", done / steps),
            )
        updates = [
            TaskUpdate(
                data.task,
                {MODULE: module.artifact(**stored)},
                parameters=module.parameters,
                head_parameters=module.head_parameters,
                detail={"steps": module.log.steps, "final_loss": module.log.losses[-1]},
            )
            for data, module, stored in zip(batch, trained, tensors, strict=True)
        ]
        updates[-1] = replace(updates[-1], shared=shared, fits=statistics.fits)
        following = state.apply(*updates)
        updates[-1] = updates[-1].plus(self.calibrate(following, context, [data.source for data in batch]))
        return updates

    def training_job(
        self,
        state: State,
        task_data: TaskData,
        seed: int,
        statistics: SharedUpdate,
        stored: Mapping[str, Mapping[str, Tensor]],
    ) -> TrainingJob:
        """Return the training job for the module of a task.

        Args:
            state: The state without the task.
            task_data: The task.
            seed: Seed of its module.
            statistics: The statistics including the task.
            stored: Statistics tensors stored with the task.
        """
        task, head = task_data.task, task_data.head
        document = head_document(head, task_data.answers)
        competing = None
        if self._modules_compete and head.owns_labels:
            known = TaskUpdate(task, {MODULE: Artifact(tensors=stored)}, statistics.shared, fits=statistics.fits)
            competing = self.competing_logits(state.apply(known), task_data)
        return TrainingJob(
            task_data.train,
            head.targets(task_data.answers, document),
            head,
            document,
            task_data.settings,
            seed,
            competing,
            f"task {task.name!r}",
        )

    def update_shared(
        self, state: State, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> SharedUpdate:
        """Return the shared objects of the state in which `added`, if any, replaces `removed`.

        Raises:
            ConfigError: `added` has no module: it used a shared one that was trained further (see `conpet upgrade`).
        """
        if added is not None and added.shared_slot is None and not added.objects[MODULE].has(ADAPTER_CONFIG):
            raise ConfigError(
                f"version {added.version} of task {added.name!r} has no module: it was learned before the workspace "
                "was upgraded, and its shared module was trained further. Learn the data of that version again"
            )
        with context.costs.stage("statistics"):
            update = self.updated_statistics(state, [removed], [added] if added else [])
        if added is None and SELECTOR in state.shared:
            update = update.plus({SELECTOR: self.selector(state).forget(removed.name)})
        following = state.with_task(added, update) if added else state.without(removed.name, update)
        if not following.tasks:
            return update.plus({CALIBRATION: None})
        calibration = self.calibrate(following, context)
        return update.plus(calibration.shared, calibration.fits)

    def reduce(
        self, state: State, task: TaskState, names: Names, stay: Sequence[int], context: TrainContext
    ) -> TaskUpdate:
        """Return a new version of a task with some of its training examples; labels also change in its head.

        A module shared with other tasks does not change; the version records the output of each label.
        """
        update = super().reduce(state, task, names, stay, context)
        outputs = {
            new: output
            for label, output in zip(task.labels, task.outputs, strict=True)
            if (new := names.get(label, label)) is not None
        }
        objects = dict(update.objects)
        if task.shared_slot is not None:
            renamed = {new: old for new, old in outputs.items() if new != old}
            objects[ASSIGNMENT] = assignment_artifact(task.shared_slot, renamed)
        else:
            module = with_labels(task.objects[MODULE], dict(sorted(outputs.items())))
            objects[MODULE] = replace(module, tensors={**module.tensors, **objects[MODULE].tensors})
        return replace(update, objects=objects)

    def trained_with(self, state: State, names: Collection[str]) -> Collection[str] | None:
        """Return the tasks and those that share a module with them; None if a task is trained against earlier ones."""
        if SELECTORS[self.settings.selector.name].needs_replay or self._modules_compete:
            return None
        slots = {task.shared_slot for task in state.known(*names)} - {None}
        return [task.name for task in state.tasks if task.name in names or task.shared_slot in slots]

    def train_again(self, state: State, batch: Sequence[TaskData], contexts: Sequence[TrainContext]) -> Rebuilt:
        """Train the modules of tasks anew: own ones, and those that tasks share."""
        own = [(data, context) for data, context in zip(batch, contexts, strict=True) if not data.task.shared_slot]
        objects: dict[str, Mapping[str, Artifact]] = {}
        shared: dict[str, Artifact | None] = {}
        context, steps = contexts[0], 0
        with context.costs.stage("module"):
            kept = {data.task.name: statistics_alone(data.task).tensors for data, _ in own}
            jobs = [
                self.training_job(state, data, each.seed, SharedUpdate(), kept[data.task.name]) for data, each in own
            ]
            trained = train_modules(
                self.backbone,
                jobs,
                checkpoint=context.scratch / MODULE if context.scratch else None,
                on_step=lambda done, all_steps: context.progress("module", done / all_steps),
            )
        for (data, _), module in zip(own, trained, strict=True):
            objects[data.task.name] = {MODULE: module.artifact(**kept[data.task.name])}
            steps += module.log.steps
        following = state.with_objects(objects)
        for slot in dict.fromkeys(data.task.shared_slot for data in batch if data.task.shared_slot):
            train = {data.task.name: data.train for data in batch if data.task.shared_slot == slot}
            merged = self._merged(following, train, slot, context)
            following, steps = merged.state, steps + merged.steps
            objects |= merged.objects
            shared |= merged.shared
        return Rebuilt(objects, shared, following, steps)

    def fit_again(self, state: State, kinds: Collection[Kind], context: TrainContext) -> SharedUpdate:
        """Fit logistic regression and fusion again."""
        fitted = super().fit_again(state, kinds, context)
        calibration = self.calibrate(state.with_shared(fitted.shared), context)
        return fitted.plus(calibration.shared, calibration.fits)

    def merge(self, state: State, names: Collection[str], slot: str, context: TrainContext) -> Rebuilt:
        """Train one module to replace the modules of several tasks.

        It minimises the cross-entropy over all their labels of an example's kind, on all their stored examples, for the
        sum of their steps. It uses the settings that the tasks have in common, and otherwise those of the workspace.

        Args:
            state: The present state.
            names: Names of the tasks; all have label heads.
            slot: The shared slot for the new module.
            context: Past examples, including those of these tasks.
        """
        sources = [source for source in context.memory if source.task in names]
        return self._merged(
            state, {source.task: source.states(self.backbone, Subset.TRAIN) for source in sources}, slot, context
        )

    def _merged(self, state: State, train: Mapping[str, States], slot: str, context: TrainContext) -> Rebuilt:
        """Merge tasks, given the prefix states of their training examples by name."""
        tasks = [task for task in state.tasks if task.name in train]
        sources = {source.task: source for source in context.memory}
        labels = [label for task in tasks for label in task.labels]
        kinds = [task.kind for task in tasks for _ in task.labels]
        answers = [label for task in tasks for label in sources[task.name].labels(Subset.TRAIN)]
        states = States.concatenated([train[task.name] for task in tasks])
        with context.costs.stage("module"):
            trained = train_module(
                self.backbone,
                TrainingJob.over_labels(states, answers, labels, self._common_settings(tasks), context.seed, kinds),
                checkpoint=context.scratch / slot if context.scratch else None,
                on_step=lambda done, steps: context.progress("module", done / steps),
            )
        objects = {task.name: {MODULE: statistics_alone(task), ASSIGNMENT: assignment_artifact(slot)} for task in tasks}
        shared: dict[str, Artifact | None] = {slot: trained.artifact()}
        following = state.with_objects(objects).with_shared(shared)
        calibration = self.calibrate(following, context)
        shared |= calibration.shared
        return Rebuilt(objects, shared, following.with_shared(calibration.shared), trained.log.steps)

    def consolidate(self, state: State, batch: Sequence[TaskData], context: TrainContext) -> Rebuilt:
        """Learn all tasks again: one shared module for all labels, a module for each task without labels.

        Statistics, selector and calibration are computed again, too.
        """
        with context.costs.stage("statistics"):
            stored, statistics = self.add_to_statistics(state, batch)
        with context.costs.stage("selector"):
            selector = self._selector_learned_again(state, batch, context)
        shared = dict(statistics.shared) | ({SELECTOR: selector} if selector else {})
        objects = self._modules_without_labels(state, batch, stored, context)
        updates = [
            TaskUpdate(data.task, objects.get(data.task.name, {MODULE: Artifact(tensors=tensors)}))
            for data, tensors in zip(batch, stored, strict=True)
        ]
        updates[-1] = replace(updates[-1], shared=shared, fits=statistics.fits)
        labelled = {data.task.name: data.train for data in batch if data.task.labels}
        merged = self._merged(state.apply(*updates), labelled, CONSOLIDATED, context)
        return replace(merged, objects={**objects, **merged.objects}, shared={**shared, **merged.shared})

    def _selector_learned_again(
        self, state: State, batch: Sequence[TaskData], context: TrainContext
    ) -> Artifact | None:
        """Return a selector trained on one task after another; None if the selector needs no training."""
        selector = None
        for number, data in enumerate(batch if SELECTORS[self.settings.selector.name].needs_replay else ()):
            earlier = replace(context, memory=[other.source for other in batch[:number]], scratch=None)
            selector = self.selector(state).learn(self._selector_data(state, data, earlier))
            state = state.with_shared({SELECTOR: selector})
        return selector

    def _modules_without_labels(
        self,
        state: State,
        batch: Sequence[TaskData],
        stored: Sequence[Mapping[str, Mapping[str, Tensor]]],
        context: TrainContext,
    ) -> dict[str, Mapping[str, Artifact]]:
        """Train the modules of tasks without labels; return their objects, by task and slot."""
        chosen = [(data, tensors) for data, tensors in zip(batch, stored, strict=True) if not data.task.labels]
        if not chosen:
            return {}
        with context.costs.stage("module"):
            trained = train_modules(
                self.backbone,
                [self.training_job(state, data, context.seed, SharedUpdate(), tensors) for data, tensors in chosen],
                checkpoint=context.scratch / MODULE if context.scratch else None,
            )
        return {
            data.task.name: {MODULE: module.artifact(**tensors)}
            for (data, tensors), module in zip(chosen, trained, strict=True)
        }

    def _common_settings(self, tasks: Sequence[TaskState]) -> TaskSettings:
        """Return the settings that tasks have in common, with the sum of their steps."""
        settings_by_task = [flat(nested(task.settings)) for task in tasks]
        common = {
            key: value
            for key, value in settings_by_task[0].items()
            if all(other.get(key) == value for other in settings_by_task[1:])
        }
        steps = sum(steps_of(len(features_of(task)), self.settings.for_task(task.settings).training) for task in tasks)
        return self.settings.for_task(common | {"training.max_steps": steps, "training.epochs": steps})

    def prune_labels(
        self, state: State, before: Sequence[TaskState], after: Sequence[TaskState]
    ) -> Mapping[str, Artifact | None]:
        """Return each shared module that now serves fewer labels, without the others; None if it serves none."""
        return prune_labels(state.shared, before, after)

    def _selector_data(self, state: State, task_data: TaskData, context: TrainContext) -> SelectorData:
        rehearsal = self._rehearsal(state, task_data, context) if self.selector(state).needs_replay else None
        return SelectorData(task_data.task.name, task_data.train, rehearsal, task_data.settings, context)

    def _rehearsal(self, state: State, task_data: TaskData, context: TrainContext) -> Rehearsal | None:
        """Prepare the past examples that the selector is trained on."""
        _, replayed = divide_budget(task_data.settings.training.batch_size, old_share=OLD_SHARE, has_memory=True)
        return rehearse(
            [source for source in context.memory if source.task != task_data.task.name],
            self.backbone,
            schedule=self.settings.replay.schedule,
            steps=self.selector(state).replay_steps,
            per_step=replayed,
            seed=context.seed,
        )

    @property
    def _modules_compete(self) -> bool:
        """Whether modules are trained in one softmax with those of older tasks, as in the paper for top_k > 1."""
        return self.settings.fusion.name == PaperFusion.name and self.settings.selector.top_k > 1

    def competing_logits(self, state: State, task_data: TaskData) -> Tensor | None:
        """Return the fixed logits of older tasks' labels, which share the softmax with the new task's labels.

        Teacher forcing (Song et al. 2023): the new task always counts as selected, next to the k - 1 likeliest older
        ones. Labels of tasks that are not selected get -100.

        Args:
            state: The state with the task's statistics but without its module.
            task_data: The task.

        Returns:
            `[n, K]`, or None if there is no older task of this kind.
        """
        task, kind = task_data.task, task_data.task.kind
        others = [other for other in state.tasks if other.kind is kind and other.name != task.name]
        if not others:
            return None
        templates = {other.template for other in others} - {task.template}
        inputs = {task.template: task_data.train}
        inputs |= {other: task_data.source.states(self.backbone, Subset.TRAIN, template=other) for other in templates}
        new_task = state.index(task.name)
        ranked = self._selected(state, inputs, kind)
        ranked[:, new_task] = -torch.inf
        modules = self.modules(state)
        chosen = _likeliest(sum_by_module(ranked, modules.of_task), self.settings.selector.top_k - 1)
        logits = modules.run(inputs, kind, chosen)
        return logits[:, state.owner != new_task].clamp(min=UNSELECTED)

    def calibrate(self, state: State, context: TrainContext, newest: Sequence[StoredExamples] = ()) -> SharedUpdate:
        """Fit the fusion on validation examples within its budget: half from the newest tasks, half from older ones.

        Every one of the newest tasks contributes at least one example, even beyond the budget.
        """
        with context.costs.stage("calibration"):
            names = {source.task for source in newest}
            old = [source for source in context.memory if source.task not in names]
            of_new, of_old = divide_budget(
                self.settings.fusion.calibration_examples,
                old_share=OLD_SHARE if newest else 1.0,
                has_memory=bool(old),
            )
            drawn = draw_by_task(old, Subset.VALIDATION, of_old, context.seed)
            for source in newest:
                count, limit = source.count(Subset.VALIDATION), max(1, of_new // len(newest))
                drawn.append((source, random.Random(context.seed).sample(range(count), min(limit, count))))  # noqa: S311
            fusion = self._fitted_fusion(state, drawn)
            fits: dict[str, Any] = {name: state.fits[name] for name in OF_FEATURES if name in state.fits}
            fits["fusion"] = fusion
            return SharedUpdate({CALIBRATION: Artifact(documents={CALIBRATION: fusion.to_json()})}, fits)

    def _intact_evidence(self, state: State, drawn: _Drawn, kind: Kind) -> tuple[Evidence | None, _Drawn]:
        """Return the evidence on drawn validation examples, and the examples: without those that need a damaged module.

        So a workspace with damaged modules can still be changed, above all to get rid of them.
        """
        if not drawn:
            return None, drawn
        try:
            return self._evidence(state, self.encode_stored(state, drawn, Subset.VALIDATION), kind)[0], drawn
        except DamagedModuleError as error:
            left_out = plural(len(error.inputs), "validation example")
            warnings.warn(f"{error}. Scores are calibrated without {left_out}", stacklevel=2)
            return self._intact_evidence(state, _without_rows(drawn, set(error.inputs)), kind)

    def _fitted_fusion(self, state: State, drawn: _Drawn) -> Fusion:
        """Fit a fusion on the drawn validation examples."""
        column = {name: index for index, name in enumerate(state.classes)}
        tasks = {task.name: task for task in state.tasks}
        parts, targets = [], []
        for kind in Kind:
            of_kind = [(source, positions) for source, positions in drawn if source.kind is kind and positions]
            evidence, intact = self._intact_evidence(state, of_kind, kind)
            parts += [] if evidence is None else [evidence]
            for source, positions in intact:
                classes = tasks[source.task].classes_for(source.labels(Subset.VALIDATION))
                targets += [column[classes[position]] for position in positions]
        cls: type[Fusion] = FUSIONS[self.settings.fusion.name]
        fusion = cls(config=self.settings.fusion)
        return fusion.fit(Evidence.joined(parts), torch.tensor(targets)) if parts else fusion


def _without_rows(drawn: _Drawn, rows: Collection[int]) -> list[tuple[StoredExamples, list[int]]]:
    """Return drawn examples without those at these rows, counted over all tasks."""
    row = count()
    left = [(source, [position for position in positions if next(row) not in rows]) for source, positions in drawn]
    return [(source, positions) for source, positions in left if positions]


def _likeliest(log_probabilities: Tensor, limit: int) -> Tensor:
    """Return the indices of at most `limit` possible modules `[n, k]` with the highest log-probability `[n, M]`."""
    possible = int((log_probabilities > -torch.inf).any(dim=0).sum())
    return log_probabilities.topk(min(limit, possible), dim=1).indices
