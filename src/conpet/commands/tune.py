"""Search for a design, and apply it to the settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from conpet.artifact import InMemoryObject
from conpet.commands.base import Transaction
from conpet.config import DesignChoices, PricesConfig
from conpet.context import Progress
from conpet.data import Task
from conpet.data.held_out import VALIDATION_SHARE, split_off
from conpet.errors import ConfigError, DataError
from conpet.evaluation.composite import price_of, require_prices
from conpet.evaluation.history import DESIGN, TUNE
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples, Subset, new_examples, text_memory
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.report.design import TuneReport
from conpet.state.reading import seed_of
from conpet.state.state import State
from conpet.store import Snapshot
from conpet.tuning.search import CostLimit, Search, cheapest, choose, require_optuna, scored
from conpet.tuning.space import SearchSpace

Objective = Literal["accuracy", "composite"]


def search(
    method: Method,
    state: State,
    snapshot: Snapshot,
    task: Task | str,
    limit: CostLimit,
    choices: DesignChoices,
    progress: Progress,
    objective: Objective = "accuracy",
) -> TuneReport:
    """Search for a design for a workspace, without changing anything.

    Args:
        method: The workspace's method.
        state: Its present state.
        snapshot: The store in that state.
        task: A task, or the name of a learned one; its test examples are never read.
        limit: Limits on the cost of the search.
        choices: The choices to search.
        progress: Called with "search" and the share of the limit spent, 0 to 1.
        objective: What to choose by: accuracy, or the composite score.

    Raises:
        ConfigError: There is nothing to choose, the composite score lacks prices, Optuna is not installed, or the limit
            is too low to finish one design.
        UnknownNameError: No task of this name was learned.
        DataError: The task has no validation examples, and too few training examples to split some off.
    """
    require_optuna()
    settings = method.settings
    prices = settings.prices
    answers = require_prices(prices, "the objective composite") if objective == "composite" else None
    space = SearchSpace.of(method, state, choices)
    source, notes = examples_of(snapshot, task, settings.seed)
    seed = settings.seed
    searched = Search(
        method.backbone,
        source,
        settings,
        space,
        limit,
        seed=seed,
        task_seed=seed_of(seed, source.task),
        progress=progress,
    )
    trials = searched.run()
    if answers is not None:
        trials = scored(trials, source.count(Subset.TRAIN), _pass_price(searched, method, prices), prices, answers)
    chosen = choose(trials) if answers is None else cheapest(trials)
    if chosen is None:
        raise ConfigError(
            f"the search reached its limit after {searched.budget.seconds:.1f} s and {searched.budget.passes:,.0f} "
            "forward-pass equivalents, before it finished training any design; the present design alone needs "
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
        objective=objective,
    )


def _pass_price(searched: Search, method: Method, prices: PricesConfig) -> float:
    """Return the price of a forward-pass equivalent, as measured in the search."""
    budget = searched.budget
    gpu_seconds = budget.seconds if method.backbone.on_gpu else 0.0
    return price_of(prices, cpu_seconds=budget.cpu_seconds, gpu_seconds=gpu_seconds) / max(budget.passes, 1e-9)


def tune(
    tx: Transaction, task: Task | str, limit: CostLimit, choices: DesignChoices, objective: Objective
) -> TuneReport:
    """Search for a design and apply it; see `ConPET.tune`."""
    with tx.costs.stage("search"):
        result = search(tx.method, tx.state, tx.snapshot, task, limit, choices, tx.progress, objective)
    report = result.model_copy(update={"applied": True})
    settings = tx.settings.changed(report.choice.design.for_workspace)
    tx.commit(
        None,
        None,
        TUNE,
        report.task,
        settings=settings.to_json(),
        detail={DESIGN: report.model_dump(mode="json")},
    )
    return report


def examples_of(snapshot: Snapshot, task: Task | str, seed: int) -> tuple[StoredExamples, tuple[str, ...]]:
    """Return the training and validation examples for a search, and notes on them for the user.

    Raises:
        UnknownNameError: No task of this name was learned.
        DataError: There are no validation examples, and too few training examples (or no texts) to split some off.
    """
    if isinstance(task, Task):
        source = new_examples(replace(task, test=()))
    else:
        source = examples_without_test_labels(snapshot.task(task).active)
    if source.count(Subset.VALIDATION):
        return source, ()
    train, validation = ((), ()) if source.latent else split_off(source.examples(Subset.TRAIN), VALIDATION_SHARE, seed)
    if not validation:
        raise DataError(
            f"task {source.task!r} has no validation examples, which a search needs, and too few training examples to "
            "split some off; add validation examples. Nothing was changed"
        )
    rest = InMemoryObject(text_memory({Subset.TRAIN: train, Subset.VALIDATION: validation, Subset.TEST: ()}))
    note = f"no validation set: {len(validation)} training examples were split off by seed {seed} for the search"
    return replace(source, reader=rest), (note,)
