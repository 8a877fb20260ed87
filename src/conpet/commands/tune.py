"""`ConPET.tune`: which examples a design is searched on, the search, and what becomes of its result."""

from __future__ import annotations

from dataclasses import replace

from conpet.config import DesignChoices, Settings
from conpet.context import Progress
from conpet.data import Task
from conpet.data.held_out import VALIDATION_SHARE, split_off
from conpet.errors import ConfigError, DataError
from conpet.methods.base import Method
from conpet.readable import Held
from conpet.replay.memory import StoredExamples, Subset, new_examples, text_memory
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.report.design import Design, TuneReport
from conpet.state.reading import seed_of
from conpet.store import Snapshot
from conpet.tuning.search import CostLimit, Search, choose, require_optuna
from conpet.tuning.space import SearchSpace


def search(
    learner: Method,
    snapshot: Snapshot,
    task: Task | str,
    limit: CostLimit,
    choices: DesignChoices,
    progress: Progress,
) -> TuneReport:
    """Search for the design of a workspace; nothing is changed.

    Args:
        learner: The learner of its present state.
        snapshot: Its present state.
        task: A task, or the name of a learned one; its test examples are never looked at.
        limit: What the search may cost.
        choices: Among what to choose.
        progress: Called with "search" and the share of the limit that is spent.

    Raises:
        ConfigError: There is nothing to choose, Optuna is not installed, or the limit does not suffice for one design.
        UnknownNameError: No task of this name was learned.
        DataError: The task has no validation examples, and too few others to split some off.
    """
    require_optuna()
    settings = learner.settings
    space = SearchSpace.of(learner, choices)
    source, notes = examples_of(snapshot, task, settings.seed)
    seed = settings.seed
    searched = Search(
        learner.backbone,
        source,
        settings,
        space,
        limit,
        seed=seed,
        task_seed=seed_of(seed, source.task),
        progress=progress,
    )
    trials = searched.run()
    chosen = choose(trials)
    if chosen is None:
        raise ConfigError(
            f"the limit was reached after {searched.budget.seconds:.1f} s, {searched.budget.passes:,.0f} forward-pass "
            f"equivalents, before a design was trained to its end; the one in force alone takes "
            f"{searched.least_passes:,.0f}. Raise the limit; nothing was changed"
        )
    return TuneReport(
        task=source.task,
        train=source.count(Subset.TRAIN),
        validation=source.count(Subset.VALIDATION),
        method=settings.method.name,
        trials=trials,
        chosen=chosen.number,
        seconds=searched.budget.seconds,
        passes=round(searched.budget.passes, 3),
        seconds_limit=limit.seconds,
        passes_limit=limit.passes,
        trials_limit=limit.trials,
        seed=seed,
        notes=(*notes, *space.notes),
    )


def applied(settings: Settings, design: Design) -> Settings:
    """Return settings with a design in force."""
    return settings.changed(design.for_workspace)


def examples_of(snapshot: Snapshot, task: Task | str, seed: int) -> tuple[StoredExamples, tuple[str, ...]]:
    """Return the training and validation examples to search with, and what to say of them.

    Raises:
        UnknownNameError: No task of this name was learned.
        DataError: There are no validation examples, and too few others (or no texts) to split some off.
    """
    if isinstance(task, Task):
        source = new_examples(replace(task, test=()))
    else:
        source = examples_without_test_labels(snapshot.task(task).active)
    if source.count(Subset.VALIDATION):
        return source, ()
    kept, validation = ((), ()) if source.latent else split_off(source.examples(Subset.TRAIN), VALIDATION_SHARE, seed)
    if not validation:
        raise DataError(
            f"task {source.task!r} has no validation examples to choose a design by, and too few others to split some "
            "off; give it some. Nothing was changed"
        )
    rest = Held(text_memory({Subset.TRAIN: kept, Subset.VALIDATION: validation, Subset.TEST: ()}))
    note = f"no validation set: {len(validation)} training examples were split off by seed {seed} for the search"
    return replace(source, reader=rest), (note,)
