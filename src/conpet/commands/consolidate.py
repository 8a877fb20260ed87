"""Consolidate: tune the backbone on the stored examples of all tasks, and learn everything again over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from conpet.artifact import Artifact
from conpet.backbone.backbone import Loaded
from conpet.backbone.states import States
from conpet.commands.base import Transaction
from conpet.commands.checks import check_consolidation, consolidation_blocker
from conpet.commands.merge import free_slot, pruned_merge
from conpet.commands.refusal import Refusal, last_refusal
from conpet.commands.tuned import TunedBackbones
from conpet.commands.validation import check_bound, validated
from conpet.config import Settings, TaskSettings
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.errors import AccuracyBoundError, DataError, Problem
from conpet.methods.base import Method, Rebuilt, TaskData
from conpet.methods.dynamic import DynamicMethod
from conpet.modules.adapter import ADAPTER_TENSORS, digest_tensors
from conpet.modules.folded import all_layers, folded_artifact, interpolated, train_to_fold
from conpet.modules.folded_info import FOLDED, ConsolidationNote, Producer, consolidation_among
from conpet.modules.training import TrainingJob
from conpet.replay.memory import MEMORY, StoredExamples, Subset
from conpet.replay.memory_writer import MemoryWriter, examples_without_test_labels, stored_examples
from conpet.state.live import backbone_of
from conpet.state.slots import CONSOLIDATION
from conpet.state.state import State
from conpet.store import SideObject, Snapshot, Store
from conpet.types import ConsolidationReport

VERB = "consolidate"
SHARES = {Kind.TEXT: 0.5, Kind.TYPING: 0.5, Kind.RELATION: 1.0}
"""Share of the LoRA that is folded in, by kind of input (`benchmarks/choose_share.py`)."""


def consolidate(
    tx: Transaction, bound: float, changes: Mapping[str, Any], tuned: TunedBackbones | None = None
) -> ConsolidationReport:
    """Consolidate a workspace; see `ConPET.consolidate`."""
    settings = tx.settings.changed({"consolidation": dict(changes)})
    settings.consolidation.check_given(changes)
    check_consolidation(tx.snapshot, bound, settings)
    started = monotonic()
    sources, notes = _sources(tx.snapshot)
    parts = [*(task.active.digest for task in tx.snapshot.tasks), VERB]
    trained_by = settings.consolidation.model_dump_json(exclude={"share"})  # the same LoRA serves every share
    context = tx.context(scratch=tx.scratch_name([*parts, trained_by]))
    examples = learned_examples(tx.snapshot)
    if settings.consolidation.layers == "top":
        done = _learned_on_top(tx, sources, context, examples)
    else:
        done = learned_over_tuned(tx, tx.state, sources, settings, context, parts, examples, tuned)
    method, rebuilt = done.method, done.rebuilt
    with tx.costs.stage("validation"):
        total = sum(source.count(Subset.VALIDATION) for source in sources)
        progress = tx.counted("validation", 2 * total)
        before = validated(tx.method, tx.state, sources, progress)
        after = validated(method, rebuilt.state, sources, progress)
    present, bytes_before = tx.snapshot.generation, tx.store.events()[-1].bytes_stored
    try:
        check_bound(
            before,
            after,
            bound,
            "the consolidation",
            done.advice,
        )
        tx.method = method
        evaluation = tx.evaluate(rebuilt.state)
        tx.count_attempts()
        event = tx.commit(
            rebuilt.state,
            evaluation,
            VERB,
            pin=True,
            side_objects=done.side_objects or tuple(side_objects(tx, rebuilt.objects, done.train)),
            shared=done.shared,
            detail={
                "tasks": [source.task for source in sources],
                "examples": examples,
                "steps": done.steps,
                "module": done.digest,
                "share": done.share,
                "settings": settings.consolidation.model_dump(mode="json"),
                "bound": bound,
                "before": [before.correct, before.total],
                "after": [after.correct, after.total],
            },
        )
    except AccuracyBoundError as error:  # also of the gate
        Refusal(present, examples, str(error), monotonic() - started).record(tx.store)
        raise
    return ConsolidationReport(
        tuple(source.task for source in sources),
        examples,
        before,
        after,
        done.share,
        present,
        bytes_before,
        event.bytes_stored,
        tuple(tx.costs.stages),
        notes,
        tx.measured(evaluation),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Consolidated:
    """All tasks learned together, not committed yet.

    Attributes:
        method: The method, over another backbone if that was tuned.
        rebuilt: The next state.
        shared: New shared objects, by slot; None empties one.
        steps: Optimiser steps taken.
        digest: Digest of the trained weights.
        share: Share of the trained change that was folded into the backbone; None if it was left as it is.
        train: Prefix states of the training examples by task; empty if the backbone was left as it is.
        side_objects: New objects of versions if the backbone was left as it is; else `side_objects` computes them.
    """

    method: Method
    rebuilt: Rebuilt
    shared: Mapping[str, Artifact | None]
    steps: int
    digest: str
    share: float | None = None
    train: Mapping[str, States] = field(default_factory=dict)
    side_objects: tuple[SideObject, ...] = ()

    @property
    def advice(self) -> str:
        """What to do instead if accuracy falls."""
        smaller = f"fold in a share below {self.share:.2g} (setting `consolidation.share`), or " if self.share else ""
        return f"{smaller}learn more examples first"


def _learned_on_top(
    tx: Transaction, sources: Sequence[StoredExamples], context: TrainContext, examples: int
) -> Consolidated:
    """Train one module for all labels over the present backbone, as a merge of all tasks does."""
    method = tx.method
    assert isinstance(method, DynamicMethod), "`consolidation_blocker` refuses other methods"  # noqa: S101
    labelled = {task.name for task in tx.state.tasks if task.labels}
    slot = free_slot(tx)
    merged = method.merge(tx.state, [source.task for source in sources if source.task in labelled], slot, context)
    module = merged.shared[slot]
    assert module is not None, "a merge trains a module"  # noqa: S101
    digest = digest_tensors(module.tensors[ADAPTER_TENSORS])
    pruned, of_versions = pruned_merge(tx, merged)
    note = {CONSOLIDATION: ConsolidationNote(len(labelled), examples, digest, "top").artifact()}
    rebuilt = replace(pruned, shared={**pruned.shared, **note}, state=pruned.state.with_shared(note))
    return Consolidated(method, rebuilt, rebuilt.shared, merged.steps, digest, side_objects=of_versions)


def learned_over_tuned(
    tx: Transaction,
    state: State,
    sources: Sequence[StoredExamples],
    settings: Settings,
    context: TrainContext,
    parts: Sequence[str],
    examples: int,
    tuned: TunedBackbones | None = None,
) -> Consolidated:
    """Tune the original backbone on examples of all tasks, and learn all tasks over it.

    Args:
        tx: The transaction.
        state: The present state, with the labels that are learned.
        sources: The examples of each of its tasks.
        settings: The settings of the consolidation.
        context: Costs, checkpoints, seed, progress.
        parts: What the examples are identified by.
        examples: Number of training examples that the tasks were learned from, stored or not.
        tuned: As in `ConPET.consolidate`.
    """
    base = tx.original_backbone()
    with tx.costs.stage("consolidation"):
        key = repr([parts, base.fingerprint.digest, _lora_settings(settings), settings.replay, context.seed])
        trained, steps = (tuned or TunedBackbones()).trained(
            key, lambda: _trained(base.loaded, tx.method, state, sources, settings, context, examples)
        )
        share = settings.consolidation.share or _default_share(state, sources)
        module = interpolated(trained, share)
        candidate = State().with_shared({FOLDED: module})
        method = type(tx.method)(backbone_of(base, candidate), tx.settings)
    with tx.costs.stage("prefix"):
        batch = _read_again(tx, method, state, sources)
    scratch = context.scratch / f"share-{share}" if context.scratch else None
    rebuilt = method.consolidate(candidate, batch, replace(context, scratch=scratch))
    train = {data.task.name: data.train for data in batch}
    return Consolidated(
        method,
        rebuilt,
        {**dict.fromkeys(tx.snapshot.shared), FOLDED: module, **rebuilt.shared},
        steps + rebuilt.steps,
        module.documents[FOLDED]["digest"],
        share,
        train,
    )


@dataclass(frozen=True, slots=True)
class Due:
    """Why a consolidation is due, and what the last one brought.

    Attributes:
        examples: Number of training examples now.
        tasks: Number of tasks now.
        before: Number of training examples at the last consolidation; None if there was none.
        seconds: What the last one took; None without one, or if it was made again to forget examples.
        accuracy: Accuracy on validation examples before and after the last one, 0 to 1; None as `seconds`.
        judged: Whether there are validation examples to judge a new one by.
    """

    examples: int
    tasks: int
    before: int | None = None
    seconds: float | None = None
    accuracy: tuple[float, float] | None = None
    judged: bool = True

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.examples:,} training examples in {self.tasks:,} tasks, and no consolidation so far"
        reason = f"{self.examples:,} training examples, {self.before:,} at the last consolidation"
        if self.seconds is None or self.accuracy is None:
            return reason
        was, became = self.accuracy
        gain = f"moved accuracy on validation examples from {was:.1%} to {became:.1%}"
        return f"{reason}, which took {self.seconds:,.0f} s and {gain}"


def due(store: Store, snapshot: Snapshot, since: int = 0) -> Due | None:
    """Return why a consolidation is due, or None.

    It is due when the number of training examples has doubled since the last one, kept or not, or when there are two
    tasks and none was tried. Then every example takes part in about two consolidations, however long the stream.

    Args:
        store: The workspace's store.
        snapshot: Its present state.
        since: Number of training examples when a consolidation was last found impossible.
    """
    last, examples = consolidation_among(snapshot.shared), learned_examples(snapshot)
    tried = (since, last.examples if last else 0, refused.examples if (refused := last_refusal(store)) else 0)
    if len(snapshot.tasks) < 2 or examples < 2 * max(tried):
        return None
    labelled = any(task.active.labels for task in snapshot.tasks)
    if not labelled or consolidation_blocker(Settings.parse(snapshot.header.settings)):
        return None
    judged = any(task.active.description["counts"][Subset.VALIDATION] for task in snapshot.tasks)
    found = Due(examples, len(snapshot.tasks), judged=judged)
    if last is None:
        return found
    found = replace(found, before=last.examples)
    done = next((one for one in store.history(search=last.digest) if one.detail.get("module") == last.digest), None)
    if done is None:  # it was made again to forget examples
        return found
    (right, total), (now_right, _) = (done.detail[name] for name in ("before", "after"))
    return replace(found, seconds=done.seconds, accuracy=(right / total, now_right / total))


def learned_examples(snapshot: Snapshot) -> int:
    """Return the number of training examples that the active versions were learned from."""
    return sum(task.active.description["counts"][Subset.TRAIN] for task in snapshot.tasks)


def _sources(snapshot: Snapshot) -> tuple[list[StoredExamples], tuple[str, ...]]:
    """Return the stored examples of all tasks, and notes for the user.

    Raises:
        DataError: A label has no stored training example, or there is no validation example.
    """
    sources = [examples_without_test_labels(task.active) for task in snapshot.tasks]
    missing = [
        Problem(f"label {label!r}", None, f"has no stored training example in task {task.name!r}")
        for task, source in zip(snapshot.tasks, sources, strict=True)
        for label in sorted(set(task.active.labels) - set(source.labels(Subset.TRAIN)))
    ]
    missing += [
        Problem(f"task {source.task!r}", None, "has no stored training example")
        for source in sources
        if not source.count(Subset.TRAIN)
    ]
    if missing:
        raise DataError(
            "a consolidation trains on stored examples of every label, but the limited replay memory holds none of "
            "some. Add examples of these labels (`conpet learn WORKSPACE FILE --extend`), or retire the labels. "
            "Nothing was changed",
            missing,
        )
    unjudged = [source.task for source in sources if not source.count(Subset.VALIDATION)]
    if len(unjudged) == len(sources):
        raise DataError(
            "a consolidation is kept only if it is no worse on stored validation examples, but no task has any. Add "
            "some: `conpet learn WORKSPACE FOLDER --extend`; FOLDER has a train and a validation file with new rows. "
            "Nothing was changed"
        )
    note = f"without validation examples, so not compared: {', '.join(unjudged)}"
    return sources, (note,) if unjudged else ()


def _trained(
    loaded: Loaded,
    method: Method,
    state: State,
    sources: Sequence[StoredExamples],
    settings: Settings,
    context: TrainContext,
    examples: int,
) -> tuple[Artifact, int]:
    """Train the module to fold on the labels of all tasks; return its object and the number of steps."""
    whole = all_layers(loaded, method.backbone)
    labelled = [(task, source) for task, source in zip(state.tasks, sources, strict=True) if task.labels]
    labels = [label for task, _ in labelled for label in task.labels]
    job = TrainingJob.over_labels(
        States.concatenated([source.states(whole, Subset.TRAIN) for _, source in labelled]),
        [label for _, source in labelled for label in source.labels(Subset.TRAIN)],
        labels,
        _lora_settings(settings),
        context.seed,
        [task.kind for task, _ in labelled for _ in task.labels],
    )
    trained = train_to_fold(
        whole,
        job,
        checkpoint=context.scratch / Producer.CONSOLIDATION if context.scratch else None,
        on_step=lambda done, steps: context.progress("consolidation", done / steps),
    )
    tasks = [source.task for source in sources]
    return folded_artifact(trained, Producer.CONSOLIDATION, tasks, examples), trained.log.steps


def _default_share(state: State, sources: Sequence[StoredExamples]) -> float:
    """Return the mean of `SHARES` over the training examples of tasks with labels."""
    counts = Counter[Kind]()
    for task, source in zip(state.tasks, sources, strict=True):
        counts[task.kind] += source.count(Subset.TRAIN) if task.labels else 0
    return sum(SHARES[kind] * count for kind, count in counts.items()) / counts.total()


def _lora_settings(settings: Settings) -> TaskSettings:
    """Return the settings of the module to fold: those of the section `consolidation`, else the workspace's."""
    own = settings.consolidation
    budget = {"batch_size": own.batch_size, "learning_rate": own.learning_rate}
    changes = {name: value for name, value in budget.items() if value is not None}
    return settings.for_task(
        {
            "module": {"kind": "lora", "rank": own.rank, "alpha": float(own.rank), "targets": "all-linear"}
            | {"dropout": 0.0, "rslora": False, "dora": False},
            "training": {"epochs": own.epochs, "max_steps": None, **changes},
        }
    )


def _read_again(tx: Transaction, method: Method, state: State, sources: Sequence[StoredExamples]) -> list[TaskData]:
    """Pass the training examples of all tasks through the new backbone, each task with its own template."""
    progress = tx.counted("prefix", sum(source.count(Subset.TRAIN) for source in sources))
    return [
        TaskData.of(task, tx.settings, source, method.backbone, progress=progress)
        for task, source in zip(state.tasks, sources, strict=True)
    ]


def side_objects(
    tx: Transaction,
    objects: Mapping[str, Mapping[str, Artifact]],
    train: Mapping[str, States],
    without: Collection[str] = (),
) -> list[SideObject]:
    """Return the new objects of active versions, and empty all slots of other versions but their examples.

    Inactive versions were learned over another backbone, or in another state; a rollback learns their examples again.

    Args:
        tx: The transaction.
        objects: New objects of active versions, by task and slot.
        train: Prefix states of the training examples that they were learned from, by task.
        without: Names of tasks whose versions do not stay.
    """
    writer = MemoryWriter(tx.method.backbone, tx.settings)
    changes = []
    for version in tx.snapshot.versions:
        if version.task in without:
            continue
        new: dict[str, Artifact | None] = {slot: None for slot in version.objects if slot != MEMORY}
        if version.active:
            new |= objects[version.task]
            memory = writer.learned_again(stored_examples(version), train[version.task])
            new |= {MEMORY: memory} if memory else {}
        changes += [SideObject(version.task, version.number, slot, artifact) for slot, artifact in new.items()]
    return changes
