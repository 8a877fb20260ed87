"""Learn tasks again without some of their examples: only the modules that saw them, or everything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from conpet.artifact import Artifact
from conpet.backbone.states import States
from conpet.commands import warmup
from conpet.commands.base import Transaction
from conpet.commands.consolidate import learned_over_tuned
from conpet.commands.extend import check_every_label
from conpet.context import TrainContext
from conpet.errors import ConfigError, DataError, listed
from conpet.methods.base import Method, TaskData
from conpet.modules.folded_info import FOLDED, FoldedNote, Producer
from conpet.replay.memory import StoredExamples, Subset
from conpet.selectors.base import SELECTOR
from conpet.state.reading import seed_of
from conpet.state.slots import shared_slot_of
from conpet.state.state import State, TaskState
from conpet.store import Snapshot, VersionRecord


class Scope(StrEnum):
    """What has to be learned again so that nothing in use was trained on an example."""

    NOTHING = "nothing"
    MODULES = "modules"
    EVERYTHING = "everything"
    CONSOLIDATION = "consolidation"


@dataclass(frozen=True, slots=True)
class Again:
    """What has to be learned again.

    Attributes:
        scope: How much.
        tasks: Names of the tasks whose modules are trained again.
        backbone: What tuned the backbone with the examples; None if nothing did.
    """

    scope: Scope
    tasks: tuple[str, ...] = ()
    backbone: Producer | None = None


def what_saw(
    method: Method,
    state: State,
    snapshot: Snapshot,
    versions: Sequence[VersionRecord],
    active: Collection[str],
    left: Collection[str],
) -> Again:
    """Return what has to be learned again when training examples of some versions are forgotten.

    Args:
        method: The method.
        state: The present state.
        snapshot: The workspace.
        versions: The versions, also inactive ones and those of kept generations: what they share with active versions
            was trained on their examples.
        active: Names of the tasks whose active versions are among them.
        left: Names of the tasks that remain.
    """
    if not versions:
        return Again(Scope.NOTHING)
    names = {version.task for version in versions}
    note = FoldedNote.among(snapshot.shared)
    tuned = note.producer if note is not None and set(note.tasks) & names else None
    remaining = tuple(task.name for task in state.tasks if task.name in left)
    if not remaining:
        return Again(Scope.EVERYTHING, (), tuned)
    if tuned is Producer.CONSOLIDATION:
        return Again(Scope.CONSOLIDATION, remaining, tuned)
    touched = method.trained_with(state, active)
    if tuned or touched is None:
        return Again(Scope.EVERYTHING, remaining, tuned)
    slots = {shared_slot_of(version.objects) for version in versions} - {None}
    also = {task.name for task in state.tasks if task.shared_slot in slots}
    chosen = tuple(name for name in remaining if name in touched or name in also)
    return Again(Scope.MODULES if chosen else Scope.NOTHING, chosen)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedAgain:
    """Tasks learned again, not committed yet.

    Attributes:
        method: The method, over another backbone if that was tuned with the examples.
        state: The state.
        objects: New objects of active versions, by task and slot.
        shared: New shared objects, by slot; None empties one.
        train: Prefix states of the examples that all tasks were learned from, by task; empty if only modules were
            trained, so that the statistics are as before.
    """

    method: Method
    state: State
    objects: Mapping[str, Mapping[str, Artifact]] = field(default_factory=dict)
    shared: Mapping[str, Artifact | None] = field(default_factory=dict)
    train: Mapping[str, States] = field(default_factory=dict)


def learn_again(
    tx: Transaction, state: State, again: Again, sources: Sequence[StoredExamples], key: str
) -> LearnedAgain:
    """Learn again what has seen examples that are no longer among the sources.

    Args:
        tx: The transaction.
        state: The present state without these examples: its statistics are right, its modules saw them.
        again: What to learn again.
        sources: The examples of each of its tasks, without test labels.
        key: What the examples that are left out are identified by, for checkpoints.
    """
    match again.scope:
        case Scope.NOTHING:
            return LearnedAgain(tx.method, state)
        case Scope.MODULES:
            return _modules(tx, state, again, sources, key)
        case Scope.EVERYTHING:
            return _everything(tx, state, again, sources, key)
        case Scope.CONSOLIDATION:
            return _consolidation(tx, state, sources, key)


def check_sources(
    snapshot: Snapshot, again: Again, sources: Sequence[StoredExamples], left: Mapping[str, Collection[str]]
) -> None:
    """Raise an error if what is to be learned again cannot be learned from the stored examples.

    Args:
        snapshot: The workspace.
        again: What is to be learned again.
        sources: The examples of the tasks that remain.
        left: The labels of each task that remain.

    Raises:
        DataError: The replay memory holds no training example of a label.
        ConfigError: The backbone was tuned with them, and the workspace stores no texts.
    """
    for source in sources:
        if again.backbone is not None and source.latent:
            raise ConfigError(
                f"the backbone was tuned with these examples ({again.backbone}), and this workspace stores no texts to "
                "tune it again without them. Forget them with --keep-modules (`keep_modules=True`): everything else of "
                "them is removed, and the tuned backbone stays; or make a new workspace without their data. Nothing "
                "was changed"
            )
        if source.task in again.tasks:
            try:
                check_every_label(snapshot.task(source.task).active, source.labels(Subset.TRAIN), left[source.task])
            except DataError as error:
                instead = "Or use --keep-modules (`keep_modules=True`): the data goes, and the module stays"
                raise DataError(f"{error.summary}. {instead}", error.problems) from None


def _modules(tx: Transaction, state: State, again: Again, sources: Sequence[StoredExamples], key: str) -> LearnedAgain:
    """Train the modules of some tasks again; the statistics are exact already."""
    chosen = [(task, source) for task, source in zip(state.tasks, sources, strict=True) if task.name in again.tasks]
    contexts = [_context(tx, task.name, sources, key) for task, _ in chosen]
    batch = _read(tx, tx.method, chosen)
    rebuilt = tx.method.train_again(state, batch, contexts)
    return LearnedAgain(tx.method, rebuilt.state, rebuilt.objects, rebuilt.shared)


def _everything(
    tx: Transaction, state: State, again: Again, sources: Sequence[StoredExamples], key: str
) -> LearnedAgain:
    """Learn all tasks again, one after another, as they were learned; also the warm-up if it saw the examples."""
    kept = {FOLDED: state.shared[FOLDED]} if FOLDED in state.shared and again.backbone is None else {}
    shared: dict[str, Artifact | None] = {slot: None for slot in tx.snapshot.shared if slot not in kept}
    method, following = tx.method, State((), kept)
    if not kept and FOLDED in state.shared:
        method = type(tx.method)(tx.original_backbone(), tx.settings)
    objects, train = {}, {}
    for number, (task, source) in enumerate(zip(state.tasks, sources, strict=True)):
        new = replace(task, objects={})
        context = _context(tx, task.name, sources[:number], key)
        if warmup.is_due(method, following):
            method, following, shared[FOLDED] = warmup.warm_up(method, following, new, source, context)
        (data,) = _read(tx, method, [(new, source)])
        update = method.learn_task(following, data, context)
        following = following.apply(update)
        objects[task.name], train[task.name] = update.objects, data.train
        shared |= update.shared
    return LearnedAgain(method, following, objects, shared, train)


def _consolidation(tx: Transaction, state: State, sources: Sequence[StoredExamples], key: str) -> LearnedAgain:
    """Consolidate again, whatever that does to accuracy."""
    context = _context(tx, "", sources, key)
    examples = sum(source.count(Subset.TRAIN) for source in sources)
    done = learned_over_tuned(tx, state, sources, tx.settings, context, [key], examples)
    return LearnedAgain(done.method, done.rebuilt.state, done.rebuilt.objects, done.shared, done.train)


def _context(tx: Transaction, name: str, memory: Sequence[StoredExamples], key: str) -> TrainContext:
    """Return the training context of a task, with the seed it was learned with and a folder for checkpoints."""
    context = tx.context(scratch=tx.scratch_name([key, name, "forget"]))
    return replace(context, memory=memory, seed=seed_of(tx.settings.seed, name))


def _read(tx: Transaction, method: Method, chosen: Sequence[tuple[TaskState, StoredExamples]]) -> list[TaskData]:
    """Pass the training examples of tasks through the prefix."""
    progress = tx.counted("prefix", sum(source.count(Subset.TRAIN) for _, source in chosen))
    with tx.costs.stage("prefix"):
        return [TaskData.of(task, tx.settings, source, method.backbone, progress=progress) for task, source in chosen]


def still_trained(again: Again, snapshot: Snapshot) -> tuple[str, ...]:
    """Return what stays trained on examples that are forgotten without learning anything again.

    Args:
        again: What would have to be learned again.
        snapshot: The workspace.
    """
    if again.scope is Scope.NOTHING:
        return ()
    by_slot: dict[str | None, list[str]] = {}
    for name in again.tasks:
        active = snapshot.task(name).active
        if active.parameters:
            by_slot.setdefault(shared_slot_of(active.objects), []).append(name)
    kept = [f"the module of task {name}" for name in by_slot.pop(None, [])]
    kept += [f"the module that tasks {listed(shared)} share" for shared in by_slot.values()]
    if SELECTOR in snapshot.shared:
        kept.append("the selector")
    if again.backbone is not None:
        kept.append(f"the backbone, by a {again.backbone}")
    return tuple(kept)
