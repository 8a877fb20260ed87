"""Compare learners on a stream: which one pays, measured on validation examples."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, Self

from conpet.api import ConPET
from conpet.backbone.states import States
from conpet.commands.checks import check_settings, consolidation_blocker, no_consolidation
from conpet.commands.tuned import TunedBackbones
from conpet.config import DEFAULT_BACKBONE, Settings
from conpet.context import Progress, ignore
from conpet.cost import BACKWARD, metered
from conpet.data import Example, Task, TaskStream
from conpet.data.held_out import VALIDATION_SHARE, halves, split_off
from conpet.errors import ConfigError, DataError, DivergedError, UnknownNameError, did_you_mean
from conpet.methods import METHODS
from conpet.modules.optimisation import steps_of
from conpet.report import text
from conpet.report.comparison import (
    CONSOLIDATE,
    CONSOLIDATE_TOP,
    LEARNERS,
    LEVEL,
    ComparisonReport,
    LearnerResult,
    method_and_ending,
)
from conpet.types import ConsolidationReport

FEWEST = 20
"""Fewest examples to measure; with fewer, only extreme differences would be more than chance."""
FEW_STEPS = 300
"""With fewer optimiser steps on all tasks, a new module for all labels is probably undertrained."""
_SAMPLE = 32
"""Number of examples that the speed is measured on."""
_ALWAYS = 100.0
"""A bound with which every consolidation is kept."""
_ENDINGS: Mapping[str, Mapping[str, Any]] = {CONSOLIDATE_TOP: {"layers": "top"}, CONSOLIDATE: {}}
"""The settings of the consolidation by the ending of a learner's name."""


def compare_learners(
    tasks: Iterable[Task],
    learners: Sequence[str] = LEARNERS,
    *,
    divisions: int = 1,
    backbone: str | Mapping[str, Any] = DEFAULT_BACKBONE,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    **settings: Any,
) -> ComparisonReport:
    """Learn a stream with several learners, each in a temporary workspace, and compare accuracy and cost.

    The validation examples of each label are divided in two halves by seed. The learners get one half for their own
    choices, such as the calibration; accuracy is measured on the other. With several divisions, all of this is repeated
    with other halves. Test examples are never read. The choice is the cheapest learner (by
    `LearnerResult.passes_per_example`) that is not clearly worse than the most accurate one, by an exact sign test on
    the same examples at 5%, in which each distinct example counts once. Nothing is left on disk but cached states.

    Args:
        tasks: The tasks, in the order in which they are to be learned.
        learners: Names of methods; with "+consolidate" at the end, the workspace is consolidated after the last task,
            with "+consolidate-top" only on the layers above the cut. A method that retrains on everything is trained
            once, at the end.
        divisions: Number of random divisions, 1 or more; the time grows with it.
        backbone: As in `ConPET.create`.
        progress: Called with the name of a learner and the share done, 0 to 1.
        announce: Called with a line about the expected time, before the first learner.
        settings: Any field of `conpet.config.Settings` but `method`, for all learners.

    Raises:
        DataError: There are too few validation examples.
        ConfigError: A setting is wrong, or a learner cannot learn the tasks or be consolidated.
        UnknownNameError: There is no such method.
        DivergedError: Training diverged with every learner.
    """
    if not isinstance(divisions, int) or divisions < 1:
        raise ConfigError(f"divisions={divisions!r}: give a whole number, 1 or more")
    given = _settings_of(backbone, settings)
    plan = _plan(learners, given)
    stream = TaskStream(tuple(tasks))
    parts = [_divided(stream, given.seed + number) for number in range(divisions)]
    report = progress or ignore
    done: list[_Division] = []
    for number, (split, _) in enumerate(parts, start=1):
        with _Division.of(split, plan, given, _numbered(report, number, divisions)) as division:
            if announce and number == 1:
                announce(_expected_time(division, plan, divisions))
            division.run()
            done.append(division)
    names = dict.fromkeys(learners)
    results, failed, best = _results({name: [division.outcomes[name] for division in done] for name in names}, done)
    distinct = len({key for division in done for key in division.keys})
    return ComparisonReport(
        backbone=given.backbone.name,
        tasks=tuple(task.name for task in stream),
        labels=sum(len(task.labels) for task in stream),
        train=sum(len(task.train) for task in done[0].learned),
        validation=sum(len(task.validation) for task in done[0].learned),
        measured=sum(len(division.measured) for division in done),
        distinct=distinct,
        divisions=divisions,
        seed=given.seed,
        settings=given.model_dump(mode="json", exclude_unset=True, exclude={"method"}),
        results=results,
        failed=failed,
        best=best,
        chosen=choose(results),
        reading_seconds=sum(division.reading_seconds for division in done),
        notes=(
            *parts[0][1],
            *_one_task(stream),
            *_retrained_once(plan, len(stream)),
            *_undertrained(plan, given, sum(len(task.train) for task in done[0].learned)),
            _least_difference(distinct),
        ),
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of the exact sign test: that of as uneven a split of fair coin tosses.

    On the examples that only one of two learners answers correctly, this is McNemar's exact test.
    """
    tosses, ways, tail = wins + losses, 1, 1
    for heads in range(min(wins, losses)):
        ways = ways * (tosses - heads) // (heads + 1)  # the number of outcomes with one more head
        tail += ways
    return min(1.0, 2 * tail / (1 << tosses))


def _settings_of(backbone: str | Mapping[str, Any], settings: Mapping[str, Any]) -> Settings:
    """Return the settings of all workspaces, with the default method."""
    if wrong := [key for key in settings if key.partition(".")[0] == "method"]:
        raise ConfigError(f"{wrong[0]} cannot be set for all learners; name the methods to compare as learners")
    return Settings.parse({"backbone": backbone}).changed(settings)


def _plan(learners: Sequence[str], given: Settings) -> dict[str, list[str]]:
    """Return the learners of each method, so that a consolidation continues from the workspace of its method."""
    if isinstance(learners, str) or not learners:
        raise ConfigError(f"learners={learners!r}: give a list of methods, for example {list(LEARNERS)}")
    plan: dict[str, list[str]] = {}
    for learner in dict.fromkeys(learners):
        name, ending = method_and_ending(learner)
        if name not in METHODS:
            known = [name + end for end in ("", *_ENDINGS) for name in METHODS]
            raise UnknownNameError(
                f"no learner {learner!r}{did_you_mean(learner, known)}; give methods, alone or with "
                f"{' or '.join(_ENDINGS)}: {', '.join(METHODS)}"
            )
        requested = given.changed({"method": name, "consolidation": _ENDINGS.get(ending, {})})
        check_settings(requested)
        if learner != name and not METHODS[name].consolidates:
            raise ConfigError(f"learner {learner!r}: {no_consolidation(name)}. Give {name!r} alone")
        if learner != name and (blocker := consolidation_blocker(requested)):
            raise ConfigError(f"learner {learner!r}: {blocker}")
        plan.setdefault(name, []).append(learner)
    return plan


@dataclass(frozen=True, slots=True)
class _Part:
    """A task as it is learned, and the examples on which its labels are measured."""

    task: Task
    measured: tuple[Example, ...]


def _divided(stream: TaskStream, seed: int) -> tuple[list[_Part], list[str]]:
    """Divide the validation examples of each task; return the parts and notes for the user.

    Raises:
        DataError: Fewer than `FEWEST` examples can be measured.
    """
    parts, notes = [], []
    for task in stream:
        train, validation = task.train, task.validation
        if not validation:
            train, validation = split_off(task.train, VALIDATION_SHARE, seed)
            notes.append(f"{task.name}: no validation set: {len(validation)} training examples were split off")
        kept, measured = halves(validation, seed)
        if not task.labels:
            kept, measured = validation, ()
            notes.append(f"{task.name}: has no labels, so it is learned but not measured")
        elif not measured:
            notes.append(f"{task.name}: too few validation examples: it is learned, but its labels are not measured")
        parts.append(_Part(replace(task, train=train, validation=kept, test=()), measured))
    number = sum(len(part.measured) for part in parts)
    if number < FEWEST:
        raise DataError(
            f"too few validation examples to compare learners on: {number} can be measured, but at least {FEWEST} are "
            "needed. Half of the validation examples of each label are measured; the rest goes to the learners, and "
            "test examples are not used. Add validation examples, ten or more for each label; if a task is a single "
            "file, add rows: its validation set is split off. Nothing was learned"
        )
    return parts, notes


def _create(folder: Path, method: str, given: Settings) -> ConPET:
    settings = given.model_dump(mode="json", exclude_unset=True, exclude={"method"})
    return ConPET.create(folder / method, method=method, **settings)


@dataclass(slots=True)
class _Spent:
    """The cost of learning so far."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: float = 0.0

    def charge(self, work: Iterator[float]) -> Iterator[float]:
        """Yield what `work` yields, and charge what it does."""
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            with metered() as meter:
                done = next(work, None)
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu
            self.tokens += meter.equivalents
            if done is None:
                return
            yield done


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a learner answered, by measured example, and what it cost."""

    correct: tuple[bool, ...]
    spent: _Spent
    passes_per_example: float
    ms_per_answer: float
    bytes_stored: int
    fall: float | None


@dataclass(slots=True)
class _Trial:
    """A method that learns the stream in its workspace, and is consolidated if wanted."""

    workspace: ConPET
    tasks: Sequence[Task]
    measured: Sequence[Example]
    progress: Progress
    tuned: TunedBackbones
    train_tokens: int
    spent: _Spent = field(default_factory=_Spent)

    def outcomes(self, wanted: Sequence[str]) -> dict[str, _Outcome | str]:
        """Return the outcome of each wanted learner of this method, or why there is none."""
        name = self.workspace.settings.method.name
        self.progress(name, 0.0)
        _ = self.workspace.backbone  # loads it, which is no part of learning
        try:
            for done in self.spent.charge(self._learn()):
                self.progress(name, done)
            found: dict[str, _Outcome | str] = {name: self._outcome(None)}
        except DivergedError as error:
            return dict.fromkeys(wanted, str(error))
        learned = self.spent
        for ending, settings in _ENDINGS.items():  # the result does not depend on a consolidation of the top before
            if f"{name}{ending}" in wanted:
                self.spent = replace(learned)
                found[f"{name}{ending}"] = self._consolidated(f"{name}{ending}", settings)
        return {learner: found[learner] for learner in wanted}

    def _learn(self) -> Iterator[float]:
        """Learn the tasks in order, yielding the share done."""
        *earlier, last = self.tasks
        if METHODS[self.workspace.settings.method.name].retrains:
            # Only the examples of earlier tasks matter, for the training on all tasks at the end.
            earlier = [replace(task, settings={**task.settings, "training.max_steps": 1}) for task in earlier]
        for number, _ in enumerate(self.workspace.learn_stream([*earlier, last], evaluate=False, gate=False), start=1):
            yield number / len(self.tasks)

    def _consolidated(self, learner: str, settings: Mapping[str, Any]) -> _Outcome | str:
        reports: list[ConsolidationReport] = []

        def work() -> Iterator[float]:
            def progress(stage: str, share: float) -> None:
                self.progress(f"{learner}, {stage}", share)

            reports.append(
                self.workspace.consolidate(
                    bound=_ALWAYS, settings=settings, tuned=self.tuned, evaluate=False, gate=False, progress=progress
                )
            )
            yield 1.0

        saved, cpu_saved = self.tuned.seconds_saved, self.tuned.cpu_seconds_saved
        try:
            for done in self.spent.charge(work()):
                self.progress(learner, done)
            self.spent.seconds += self.tuned.seconds_saved - saved
            self.spent.cpu_seconds += self.tuned.cpu_seconds_saved - cpu_saved
        except (DataError, DivergedError) as error:
            return str(error)
        before, after = reports[0].before, reports[0].after
        fall = 100 * (before.correct - after.correct) / before.total
        return self._outcome(fall if fall > 0 else None)

    def _outcome(self, fall: float | None) -> _Outcome:
        self.workspace.predict(self.measured[:1])  # excludes the loading at the first prediction
        started = time.perf_counter()
        answers = self.workspace.predict_stream(self.measured, top_n=1)
        correct = tuple(answer.label == example.label for answer, example in zip(answers, self.measured, strict=True))
        return _Outcome(
            correct,
            replace(self.spent),
            self.spent.tokens / self.train_tokens,
            1000 * (time.perf_counter() - started) / len(self.measured),
            self.workspace.store.events()[-1].bytes_stored,
            fall,
        )


def _tokens(states: States) -> int:
    return sum(len(example.ids) for example in states.encoded)


def _key(task: str, example: Example) -> tuple[Any, ...]:
    """Return what makes an example distinct."""
    return (task, *example.input_key)


@dataclass(slots=True)
class _Division:
    """One division of the validation examples, and what each learner answers on it.

    Attributes:
        learned: The tasks as they are learned.
        measured: The examples on which accuracy is measured.
        keys: What makes each of these distinct.
        plan: The learners of each method.
        workspaces: An empty workspace for each method.
        progress: See `compare_learners`.
        outcomes: The outcome of each learner, or why there is none.
        reading_seconds: How long it took to pass all examples through the frozen layers.
        train_tokens: Number of tokens of the training examples.
    """

    learned: list[Task]
    measured: list[Example]
    keys: list[tuple[Any, ...]]
    plan: Mapping[str, Sequence[str]]
    workspaces: list[ConPET]
    progress: Progress
    outcomes: dict[str, _Outcome | str] = field(default_factory=dict)
    reading_seconds: float = 0.0
    train_tokens: int = 0

    @classmethod
    @contextmanager
    def of(
        cls, parts: Sequence[_Part], plan: Mapping[str, Sequence[str]], given: Settings, progress: Progress
    ) -> Iterator[Self]:
        """Create the workspaces, which are deleted at the end, and read the examples."""
        learned = [part.task for part in parts]
        keys = [_key(part.task.name, example) for part in parts for example in part.measured]
        measured = [example for part in parts for example in part.measured]
        with TemporaryDirectory(prefix="conpet-compare-") as folder, ExitStack() as opened:
            created = [opened.enter_context(_create(Path(folder), name, given)) for name in plan]
            for workspace in created:
                workspace.check(learned)
            division = cls(learned, measured, keys, plan, created, progress)
            division._read()
            yield division

    def _read(self) -> None:
        """Pass all examples through the frozen layers, which fills the cache.

        Without it, the first learner would pay for the others.
        """
        backbone = self.workspaces[0].backbone
        started = time.perf_counter()
        for number, task in enumerate(self.learned):
            self.progress("prefix", number / len(self.learned))
            self.train_tokens += _tokens(backbone.states(task.train, task.template))
            backbone.states(task.validation, task.template)
        self.reading_seconds = time.perf_counter() - started

    def run(self) -> None:
        """Learn with each learner, and measure it."""
        tuned = TunedBackbones()
        for workspace, wanted in zip(self.workspaces, self.plan.values(), strict=True):
            trial = _Trial(workspace, self.learned, self.measured, self.progress, tuned, self.train_tokens)
            self.outcomes |= trial.outcomes(wanted)
            workspace.close()


def _results(
    outcomes: Mapping[str, Sequence[_Outcome | str]], divisions: Sequence[_Division]
) -> tuple[tuple[LearnerResult, ...], dict[str, str], str]:
    """Return the results, the reasons of learners that failed in a division, and the name of the best learner.

    Raises:
        DivergedError: All learners failed.
    """
    failed = {name: why for name, found in outcomes.items() for why in reversed(found) if isinstance(why, str)}
    done = {
        name: [outcome for outcome in found if isinstance(outcome, _Outcome)]
        for name, found in outcomes.items()
        if name not in failed
    }
    if not done:
        raise DivergedError("no learner has a result: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))

    def rank(name: str) -> tuple[int, float]:
        return sum(sum(one.correct) for one in done[name]), -mean(one.passes_per_example for one in done[name])

    best = max(done, key=rank)
    keys = [division.keys for division in divisions]
    return tuple(_result(name, found, done[best], keys) for name, found in done.items()), failed, best


def _result(
    learner: str, outcomes: Sequence[_Outcome], best: Sequence[_Outcome], keys: Sequence[Sequence[tuple[Any, ...]]]
) -> LearnerResult:
    votes: Counter[tuple[Any, ...]] = Counter()
    for outcome, other, examples in zip(outcomes, best, keys, strict=True):
        for own, others, example in zip(outcome.correct, other.correct, examples, strict=True):
            votes[example] += own - others
    only_it, only_best = sum(vote > 0 for vote in votes.values()), sum(vote < 0 for vote in votes.values())
    falls = [outcome.fall for outcome in outcomes if outcome.fall is not None]
    return LearnerResult(
        learner=learner,
        correct=sum(sum(outcome.correct) for outcome in outcomes),
        accuracies=tuple(sum(outcome.correct) / len(outcome.correct) for outcome in outcomes),
        only_it=only_it,
        only_best=only_best,
        p_value=sign_test(only_it, only_best),
        seconds=mean(outcome.spent.seconds for outcome in outcomes),
        cpu_seconds=mean(outcome.spent.cpu_seconds for outcome in outcomes),
        passes_per_example=round(mean(outcome.passes_per_example for outcome in outcomes), 3),
        ms_per_answer=mean(outcome.ms_per_answer for outcome in outcomes),
        bytes_stored=round(mean(outcome.bytes_stored for outcome in outcomes)),
        fall=max(falls, default=None),
    )


def choose(results: Iterable[LearnerResult]) -> str:
    """Return the cheapest learner that is not clearly worse than the best; of equally cheap ones, the most accurate."""
    near = [result for result in results if result.p_value >= LEVEL]
    return min(near, key=lambda result: (result.passes_per_example, -result.correct)).learner


def _least_difference(measured: int) -> str:
    """Say which differences cannot be clear, even if one learner is never right where the other is wrong."""
    least = next(number for number in count(1) if sign_test(0, number) < LEVEL)
    return (
        f"{measured:,} examples are measured: a difference of two learners below {100 * least / measured:.1f} points "
        "cannot be told from chance"
    )


def _numbered(progress: Progress, number: int, divisions: int) -> Progress:
    """Return a progress function that names the division, if there are several."""
    if divisions == 1:
        return progress
    return lambda stage, share: progress(f"division {number} of {divisions}, {stage}", share)


def _expected_time(division: _Division, plan: Mapping[str, Sequence[str]], divisions: int) -> str:
    """Return a line on the expected time of a comparison, from the speed on a sample of the examples."""
    workspace = division.workspaces[0]
    backbone, settings = workspace.backbone, workspace.settings
    task = division.learned[0]
    started = time.perf_counter()
    sample = backbone.states(task.train[:_SAMPLE], task.template, keep=False)
    seconds = (time.perf_counter() - started) / _tokens(sample) / backbone.prefix_share
    passes = sum(_passes(method, wanted, settings, backbone.suffix_share) for method, wanted in plan.items())
    if any(learner.endswith(CONSOLIDATE) for wanted in plan.values() for learner in wanted):
        passes += (1 + BACKWARD) * settings.consolidation.epochs  # the tuned backbone is trained once for all
    return f"expected time: about {text.duration(max(1.0, divisions * passes * division.train_tokens * seconds))}"


def _passes(method: str, wanted: Sequence[str], settings: Settings, suffix_share: float) -> float:
    """Return about how many passes through the whole backbone a method makes for each training example.

    What the learners share is not counted: the states in the cache, and the training of a backbone.
    """
    trained = (1 + BACKWARD) * settings.training.epochs * suffix_share if METHODS[method].tunes else 0.0
    return sum(trained + learner.endswith(CONSOLIDATE) for learner in wanted)


def _one_task(stream: TaskStream) -> list[str]:
    if len(stream) > 1:
        return []
    return [
        "the stream has one task, so the comparison does not show what learning further tasks costs or changes; add "
        "the tasks you expect, or divide this one (`conpet stream make FILE FOLDER --by random --tasks 5`)"
    ]


def _undertrained(methods: Iterable[str], settings: Settings, examples: int) -> list[str]:
    steps = steps_of(examples, settings.training)
    return [
        f"{name}: trained with only {steps:,} optimiser steps, so it is probably undertrained and no upper bound; "
        f"raise training.epochs (now {settings.training.epochs})"
        for name in methods
        if METHODS[name].retrains and steps < FEW_STEPS
    ]


def _retrained_once(methods: Iterable[str], tasks: int) -> list[str]:
    return [
        f"{name}: trained once, on all tasks; learning them one after another trains it {tasks} times"
        for name in methods
        if METHODS[name].retrains and tasks > 1
    ]
