"""Search for a design by successive halving: every design starts, the better ones continue, few train to the end.

Optuna proposes the designs (its tree-structured Parzen estimator, seeded) and decides at each rung which continue (its
asynchronous successive halving: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"). A rung is a
number of optimiser steps, at which designs are compared by their accuracy on the task's validation examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conpet.artifact import InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import PricesConfig, Settings, TaskSettings
from conpet.cost import BACKWARD, Meter, metered
from conpet.errors import ConfigError, DivergedError
from conpet.evaluation.composite import composite
from conpet.modules.folded import all_layers, folded, folded_artifact, train_to_fold
from conpet.modules.folded_info import Producer
from conpet.modules.module import PetModule
from conpet.modules.optimisation import steps_of
from conpet.modules.training import TrainingJob, represented, train_module
from conpet.replay.memory import StoredExamples, Subset
from conpet.report.design import Design, DesignTrial, Outcome, Rung
from conpet.tuning.space import SearchSpace

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""About one in `REDUCTION` designs continues to the next rung, which has `REDUCTION` times as many steps."""
RUNGS = (1, 3, 9, 27, 81)
"""Steps of the rungs relative to the first; the longest design without warm-up ends at the fourth."""


@dataclass(frozen=True, slots=True)
class CostLimit:
    """Limits on the cost of a search, which ends at the first limit it reaches.

    Attributes:
        seconds: Wall time.
        passes: Forward-pass equivalents (see `conpet.report.design.TuneReport`).
        trials: Number of designs.

    Raises:
        ConfigError: No limit is given, or a limit is not above 0.
    """

    seconds: float | None = None
    passes: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        limits = {"seconds": self.seconds, "passes": self.passes, "trials": self.trials}
        if all(value is None for value in limits.values()):
            raise ConfigError("a search needs a limit: give seconds, passes (forward-pass equivalents) or trials")
        for name, value in limits.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value}: give a limit above 0")


class Budget:
    """Compares the cost so far with the limit.

    Args:
        limit: The limit.

    Attributes:
        meter: Counts what the search computes.
    """

    def __init__(self, limit: CostLimit) -> None:
        self._limit = limit
        self.meter = Meter()
        self._started, self._used = time.perf_counter(), time.process_time()
        self._tokens = 1.0

    def measure_by(self, states: States) -> None:
        """Define one forward pass as the mean length of these examples."""
        self._tokens = sum(len(encoded.ids) for encoded in states.encoded) / len(states)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self._started

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the process so far."""
        return time.process_time() - self._used

    @property
    def passes(self) -> float:
        """Forward-pass equivalents so far."""
        return self.meter.equivalents / self._tokens

    @property
    def spent(self) -> float:
        """The largest share spent of the time and pass limits; at 1 or more the search stops."""
        shares = ((self.seconds, self._limit.seconds), (self.passes, self._limit.passes))
        return max((so_far / limit for so_far, limit in shares if limit is not None), default=0.0)


class _Halved(Exception):  # noqa: N818 - these two end a trial, they are not errors
    """The design did not continue past a rung."""


class _Stopped(Exception):  # noqa: N818
    """The limit was reached."""


@dataclass(slots=True)
class _TrialRun:
    """The progress of a trial.

    Attributes:
        trial: The trial in Optuna.
        total: Optimiser steps of the whole trial.
        rungs: The measurements so far.
        done: Optimiser steps taken.
        warmup_steps: Optimiser steps of its warm-up, once that is finished.
        parameters: Number of parameters of the module in training.
    """

    trial: optuna.Trial
    total: int
    rungs: list[Rung] = field(default_factory=list)
    done: int = 0
    warmup_steps: int = 0
    parameters: int = 0


class Search:
    """Tries designs on one task within a limit.

    Args:
        backbone: The frozen model as the workspace has it.
        source: The task's training and validation examples.
        settings: The workspace's settings; their design is tried first.
        space: The designs to choose from.
        limit: Limits on the cost.
        seed: Seed of the proposed designs.
        task_seed: Seed for learning the task.
        progress: Called with "search" and the share of the limit that is spent.
    """

    def __init__(
        self,
        backbone: Backbone,
        source: StoredExamples,
        settings: Settings,
        space: SearchSpace,
        limit: CostLimit,
        *,
        seed: int,
        task_seed: int,
        progress: Callable[[str, float], None],
    ) -> None:
        self._backbone = backbone
        self._source = source
        self._settings = settings
        self._space = space
        self._limit = limit
        self._seed = seed
        self._task_seed = task_seed
        self._progress = progress
        self._labels = sorted(set(source.labels(Subset.TRAIN)))
        self._cuts = {backbone.frozen_layers: backbone}
        self._read: dict[tuple[int, Subset], States] = {}
        self._tried_so_far = 0
        self.budget = Budget(limit)

    def run(self) -> tuple[DesignTrial, ...]:
        """Try designs until the limit is reached."""
        trials: list[DesignTrial] = []
        with metered() as self.budget.meter, _study(self._seed, self._first_rung) as study:
            self.budget.measure_by(self._states(self._backbone, Subset.TRAIN))
            study.enqueue_trial(self._space.first)
            while self.budget.spent < 1 and len(trials) != self._limit.trials:
                trials.append(self._try_design(study, len(trials) + 1))
                self._tried_so_far = len(trials)
                self._report_progress()
        return tuple(trials)

    def _report_progress(self) -> None:
        tried = self._tried_so_far / self._limit.trials if self._limit.trials is not None else 0.0
        self._progress("search", min(1.0, max(tried, self.budget.spent)))

    @cached_property
    def _first_rung(self) -> int:
        """Number of optimiser steps of the first rung."""
        longest = steps_of(self._count, self._settings.for_task({"training.epochs": self._space.most_epochs}).training)
        return max(1, longest // RUNGS[3])

    @property
    def least_passes(self) -> float:
        """Forward-pass equivalents of training the present design, without its evaluation."""
        design = self._space.before
        return self._count * self._price(design, self._settings_of(design))

    @property
    def _count(self) -> int:
        return self._source.count(Subset.TRAIN)

    def _cut(self, frozen_layers: int) -> Backbone:
        if frozen_layers not in self._cuts:
            self._cuts[frozen_layers] = self._backbone.recut(frozen_layers)
        return self._cuts[frozen_layers]

    def _try_design(self, study: optuna.Study, number: int) -> DesignTrial:
        trial = study.ask(self._space.distributions)
        design = self._space.design(trial.params)
        settings = self._settings_of(design)
        steps = steps_of(self._count, settings.training)
        run = _TrialRun(trial, steps * (2 if self._space.warms_up(design) else 1))
        seconds, passes = self.budget.seconds, self.budget.passes
        outcome = self._outcome(design, settings, run)
        self._tell(study, run, outcome)
        return DesignTrial(
            number=number,
            design=design,
            outcome=outcome,
            rungs=tuple(run.rungs),
            steps=run.done,
            seconds=self.budget.seconds - seconds,
            passes=round(self.budget.passes - passes, 3),
            parameters=run.parameters,
            passes_per_example=self._price(design, settings),
        )

    def _outcome(self, design: Design, settings: TaskSettings, run: _TrialRun) -> Outcome:
        try:
            backbone = self._cut(design.frozen_layers)
            if self._space.warms_up(design):
                backbone = self._warmed_up(backbone, settings, run)
            train, validation = (self._states(backbone, subset) for subset in (Subset.TRAIN, Subset.VALIDATION))
            watch = self._watch(backbone, validation, run)
            train_module(backbone, self._job(train, settings), watch=watch)
        except _Halved:
            return Outcome.HALVED
        except _Stopped:
            return Outcome.STOPPED
        except DivergedError:
            return Outcome.DIVERGED
        return Outcome.FINISHED

    def _job(self, states: States, settings: TaskSettings) -> TrainingJob:
        """Return the training job of a module with these settings."""
        answers = self._source.labels(Subset.TRAIN)
        return TrainingJob.over_labels(states, answers, self._labels, settings, self._task_seed)

    def _warmed_up(self, backbone: Backbone, settings: TaskSettings, run: _TrialRun) -> Backbone:
        """Return the backbone with a warm-up folded in, trained with the design's settings as `learn` would."""
        whole = all_layers(backbone.loaded, backbone)
        train, validation = (self._source.states(whole, subset) for subset in (Subset.TRAIN, Subset.VALIDATION))
        watch = self._watch(whole, validation, run)
        trained = train_to_fold(whole, self._job(train, settings), watch=watch)
        run.warmup_steps = run.done
        artifact = folded_artifact(trained, Producer.WARM_UP, [self._source.task], len(train))
        return backbone.over(folded(backbone.loaded, InMemoryObject(artifact)))

    def _watch(
        self, backbone: Backbone, validation: States, run: _TrialRun
    ) -> Callable[[int, PetModule, nn.Module], None]:
        rungs = {self._first_rung * factor for factor in RUNGS}

        def watch(steps: int, module: PetModule, head: nn.Module) -> None:
            run.done = run.warmup_steps + steps
            run.parameters = sum(parameter.numel() for parameter in module.parameters.values())
            last = run.done == run.total
            if last or run.done in rungs:
                correct = self._correct(backbone, module, head, validation)
                run.rungs.append(Rung(run.done, correct, len(validation)))
                run.trial.report(run.rungs[-1].accuracy, run.done)
            if last:
                return
            if self.budget.spent >= 1:
                raise _Stopped
            if run.done in rungs and run.trial.should_prune():
                raise _Halved
            self._report_progress()

        return watch

    def _correct(self, backbone: Backbone, module: PetModule, head: nn.Module, validation: States) -> int:
        module.train(False)
        with torch.no_grad():
            logits = head(represented(backbone, module, validation).to(backbone.device))
        module.train()
        return int((logits.argmax(dim=1).cpu() == self._truth(Subset.VALIDATION)).sum())

    @staticmethod
    def _tell(study: optuna.Study, run: _TrialRun, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        if outcome is Outcome.FINISHED:
            study.tell(run.trial, run.rungs[-1].accuracy)
        else:
            study.tell(run.trial, state=TrialState.PRUNED)

    def _settings_of(self, design: Design) -> TaskSettings:
        return self._settings.for_task(design.for_task)

    def _price(self, design: Design, settings: TaskSettings) -> float:
        """Return the forward-pass equivalents of prefix and training, per training example."""
        epochs = steps_of(self._count, settings.training) / ceil(self._count / settings.training.batch_size)
        backbone = self._cut(design.frozen_layers)
        trained = (1 + BACKWARD) * epochs
        warm = trained if self._space.warms_up(design) else 0.0
        return round(warm + backbone.prefix_share + trained * backbone.suffix_share, 3)

    def _truth(self, subset: Subset) -> Tensor:
        column = {label: index for index, label in enumerate(self._labels)}
        return torch.tensor([column.get(label, -1) for label in self._source.labels(subset)])

    def _states(self, backbone: Backbone, subset: Subset) -> States:
        """Return prefix states; those of the workspace's own weights are read once for each cut."""
        if backbone.fingerprint != self._backbone.fingerprint:
            return self._source.states(backbone, subset, keep=False)
        key = (backbone.frozen_layers, subset)
        if key not in self._read:
            self._read[key] = self._source.states(backbone, subset)
        return self._read[key]


@contextmanager
def _study(seed: int, first_rung: int) -> Iterator[optuna.Study]:
    """Open an in-memory study, with Optuna's log messages below warnings switched off."""
    optuna = require_optuna()
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.SuccessiveHalvingPruner(first_rung, REDUCTION),
        )
    finally:
        optuna.logging.set_verbosity(level)


def require_optuna() -> Any:
    """Return the Optuna module.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("searching for a design needs Optuna: pip install 'conpet[tune]'") from None
    return optuna


def choose(trials: Sequence[DesignTrial]) -> DesignTrial | None:
    """Return the cheapest design that is not clearly worse than the best; None if no trial finished.

    The one-standard-error rule (Breiman et al. 1984): among finished trials whose accuracy is within one standard error
    of the best, choose the one with the fewest forward-pass equivalents per example, then the fewest parameters, then
    the highest accuracy.
    """
    finished = {trial.number: trial.rungs[-1] for trial in trials if trial.outcome is Outcome.FINISHED}
    if not finished:
        return None
    best = max(finished.values(), key=lambda rung: rung.accuracy)
    least = best.accuracy - standard_error(best)
    near = [trial for trial in trials if trial.number in finished and finished[trial.number].accuracy >= least]
    return min(near, key=lambda trial: (trial.passes_per_example, trial.parameters, -finished[trial.number].accuracy))


def cheapest(trials: Sequence[DesignTrial]) -> DesignTrial | None:
    """Return the finished design with the lowest composite score, of equal ones the most accurate; None without one."""
    finished = [(trial.score, -(trial.accuracy or 0.0), trial) for trial in trials if trial.score is not None]
    return min(finished, key=lambda row: row[:2])[2] if finished else None


def scored(
    trials: Sequence[DesignTrial], train: int, pass_price: float, prices: PricesConfig, answers: int
) -> tuple[DesignTrial, ...]:
    """Return trials with the composite scores of finished designs.

    Learning a task with the design is its update, and a pass through the whole backbone is an answer.

    Args:
        trials: The trials.
        train: Number of training examples.
        pass_price: Price of a forward-pass equivalent.
        prices: The prices and weights.
        answers: Number of answers over which the cost of learning is spread.
    """
    return tuple(
        trial.model_copy(
            update={
                "score": composite(
                    prices,
                    error_rate=1 - trial.rungs[-1].accuracy,
                    answers=answers,
                    updates=trial.passes_per_example * train * pass_price,
                    running=answers * pass_price,
                ).total
            }
        )
        if trial.outcome is Outcome.FINISHED
        else trial
        for trial in trials
    )


def standard_error(rung: Rung) -> float:
    """Return the standard error of an accuracy: sqrt(p (1 - p) / n), p with one correct and one wrong answer added.

    It is therefore above 0 even if all n answers are correct (Agresti and Coull 1998).
    """
    share = (rung.correct + 1) / (rung.total + 2)
    return sqrt(share * (1 - share) / rung.total)
