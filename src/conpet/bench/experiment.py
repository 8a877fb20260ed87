"""Experiments: a YAML file and the runs it defines."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, JsonValue, model_validator

from conpet.bench.metrics import METRICS
from conpet.config import NonEmpty, Positive, Settings, StrictModel
from conpet.config.base import flat, nested, parse
from conpet.config.settings import COMPONENTS, is_budget
from conpet.config.unique_keys import load_yaml
from conpet.data.labelled import PerLabel
from conpet.data.recipe import StreamRecipe
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.methods import METHODS

_SEED_STEP = 1000
_NOT_IN_A_NAME = re.compile(r"[^\w.=-]+")
_ELSEWHERE = {
    "backbone.name": "use the key 'backbone' of the experiment or of a variant",
    "method": "it belongs to a learner",
    "seed": "it follows from 'seeds' and 'orders'",
}
"""Settings not allowed under `settings` or `budget`, and where they come from."""


Consolidate = Literal["last", "half", "doubling"]
"""When an experiment consolidates a workspace: after the last task, after half of the tasks, or each time the number of
training examples has doubled."""


class Source(StrictModel):
    """Which part of a data set is used, and how it is divided into tasks.

    Attributes:
        train: Most training examples per label; None for all.
        validation: Most validation examples per label.
        test: Most test examples per label.
        out_of_scope: Number of out-of-scope inputs to distinguish from test inputs; None to skip this metric.
        first_tasks: Number of tasks to learn, in the order of the source; None for all.
        measured_on: Examples that measure accuracy: "test", or "validation" (half of the validation examples of every
            label), for experiments that choose settings.
        stream: A recipe instead of the experiment's.
    """

    noun = "key of a data set"

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None
    out_of_scope: Positive | None = None
    first_tasks: Positive | None = None
    measured_on: Literal["test", "validation"] = "test"
    stream: StreamRecipe | None = None

    @property
    def per_label(self) -> PerLabel:
        """Most examples per label."""
        return PerLabel(self.train, self.validation, self.test)


class Variant(StrictModel):
    """The changes of one variant of an experiment.

    Attributes:
        stream: The recipe for all data sets.
        backbone: The backbone.
        settings: Settings that extend or override the experiment's.
        budget: Budget settings that extend or override the experiment's.
        learners: Names of its learners; None for all.
        data: Names of its data sets; None for all.
    """

    noun = "key of a variant"

    stream: StreamRecipe | None = None
    backbone: str | None = None
    settings: Mapping[str, JsonValue] = {}
    budget: Mapping[str, JsonValue] = {}
    learners: tuple[str, ...] | None = None
    data: tuple[str, ...] | None = None


class Experiment(StrictModel):
    """The content of an experiment file.

    Attributes:
        title: The question of the experiment, in one line.
        data: Data sets (listed by `conpet bench data list`, or paths relative to the file) and the part of each used.
        stream: How data are divided into tasks.
        orders: Number of task orders: order 0 is that of the source, the others are shuffled.
        seeds: Number of seeds for each order.
        backbone: The frozen model.
        settings: Settings of all learners, nested by section: module, frozen layers and so on.
        budget: Settings of how much is trained and stored, nested too; equal for all learners unless a learner
            overrides them. The `budget` of each settings class lists these settings. A learner whose components lack
            a setting (the steps of another selector) runs without it.
        learners: The settings of each learner by name, which override all others. `method` is required: its name, or
            a section with its options.
        variants: The changes of each variant by name, to compare several settings of the experiment.
        metrics: Columns of its table.
        evaluate_after: Evaluate after every task, after the last, or after the tasks with these numbers. With numbers,
            the time of a prediction is measured too.
        consolidate: For learners by name, when to consolidate the workspace: after the last task, after half of the
            tasks, or each time the number of training examples has doubled. The result is kept whatever the validation
            examples say, so that its effect is measured.
        full: Keys replaced by `--full`.
    """

    noun = "key of an experiment"

    title: str
    data: Annotated[Mapping[str, Source], Field(min_length=1)]
    stream: StreamRecipe = StreamRecipe()
    orders: Positive = 5
    seeds: Positive = 1
    backbone: str = "minilm-l6"
    settings: Mapping[str, JsonValue] = {}
    budget: Mapping[str, JsonValue] = {}
    learners: Annotated[Mapping[str, Mapping[str, JsonValue]], Field(min_length=1)]
    variants: Annotated[Mapping[str, Variant], Field(min_length=1)] = {"": Variant()}
    metrics: NonEmpty[str] = ("whole_accuracy", "average_accuracy", "forgetting")
    evaluate_after: Literal["every", "last"] | NonEmpty[Positive] = "every"
    consolidate: Mapping[str, Consolidate] = {}
    full: Mapping[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_names("metric", self.metrics, METRICS)
        _check_names("learner", self.consolidate, self.learners)
        for variant in self.variants.values():
            _check_names("learner", variant.learners or (), self.learners)
            _check_names("data set", variant.data or (), self.data)
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Parse the content of an experiment file. Names of data sets, learners and variants may contain dots.

        Raises:
            ConfigError: A key or value is unknown or wrong; the message names it.
        """
        return parse(cls, values)

    @classmethod
    def read(cls, path: Path, *, full: bool = False) -> Self:
        """Read an experiment file.

        Args:
            path: The YAML file.
            full: Whether the keys under `full` replace the others.

        Raises:
            ConfigError: The file cannot be read, or a key or value is unknown or wrong.
        """
        content = _loaded(path)
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: an experiment is a mapping of keys: {', '.join(cls.model_fields)}")
        if full and not content.get("full"):
            raise ConfigError(f"{path} defines no full size: add a key 'full', or leave --full out")
        try:
            experiment = cls.parse(content | content["full"] if full else content)
            _check_runs(experiment.runs(path.stem))
        except (ConfigError, UnknownNameError) as error:
            raise ConfigError(f"{path}: {error}") from None
        return experiment

    def runs(self, name: str) -> Iterator[Run]:
        """Yield all runs order by order, so that the results of an interrupted experiment cover all learners.

        Args:
            name: Name of the experiment.

        Raises:
            ConfigError: A setting is unknown or out of range, or a method is missing.
            UnknownNameError: A method is unknown.
        """
        settings_of = cache(self._settings)
        for seed in range(self.seeds):
            for order in range(self.orders):
                for variant, changes in self.variants.items():
                    for data in changes.data or self.data:
                        for learner in changes.learners or self.learners:
                            settings = settings_of(variant)[learner]
                            yield self._run(name, variant, data, learner, order, seed, settings)

    def _run(self, name: str, variant: str, data: str, learner: str, order: int, seed: int, settings: Settings) -> Run:
        changes = self.variants[variant]
        source = self.data[data]
        return Run(
            experiment=name,
            data=data,
            variant=variant,
            learner=learner,
            order=order,
            seed=seed,
            source=source,
            stream=changes.stream or source.stream or self.stream,
            backbone=settings.backbone.name,
            budget=nested(self._budget(variant)),
            settings=settings.changed({"seed": _SEED_STEP * seed + order}),
            evaluate_after=self.evaluate_after,
            consolidate=self.consolidate.get(learner),
        )

    def _budget(self, variant: str) -> dict[str, Any]:
        """Return the budget of a variant, by dotted names."""
        return _dotted(self.budget) | _dotted(self.variants[variant].budget)

    def _settings(self, variant: str) -> dict[str, Settings]:
        """Return the settings of every learner of a variant, by the learner's name.

        The learner's own settings override the variant's, which override the experiment's.
        """
        changes = self.variants[variant]
        shared = Settings.parse({"backbone.name": changes.backbone or self.backbone})
        for section in (self.settings, changes.settings):
            shared = _changed("settings", shared, section)
        learners: dict[str, Settings] = {}
        known: dict[str, bool] = {}
        for name, own in self.learners.items():
            skipped = name not in (changes.learners or self.learners)
            with suppress(ConfigError, UnknownNameError) if skipped else nullcontext():
                learners[name] = _of_learner(name, variant, shared, own)
                known |= _names(learners[name])
        budget = self._budget(variant)
        _check_placed("settings", _dotted(self.settings) | _dotted(changes.settings), known, budget=False)
        _check_placed("budget", budget, known, budget=True)
        with_budget = {}
        for name, settings in learners.items():
            own, names = _dotted(self.learners[name]), _names(settings)
            applied = {key: value for key, value in budget.items() if key in names and key not in own}
            with_budget[name] = _changed("budget", settings, applied)
        return with_budget


@dataclass(frozen=True, eq=False)
class Run:
    """A learner on a stream, with one order and seed.

    Attributes:
        experiment: Name of the experiment.
        data: Name of the data set, or its path.
        variant: Name of the variant.
        learner: Name of the learner.
        order: Number of the order of tasks.
        seed: Number of the seed.
        source: The part of the data used.
        stream: How the data are divided into tasks.
        backbone: The frozen model.
        budget: The budget settings of all learners, nested.
        settings: Settings of its workspace.
        evaluate_after: As in `Experiment`.
        consolidate: When to consolidate the workspace, or None for never.
    """

    experiment: str
    data: str
    variant: str
    learner: str
    order: int
    seed: int
    source: Source
    stream: StreamRecipe
    backbone: str
    budget: Mapping[str, Any]
    settings: Settings
    evaluate_after: Literal["every", "last"] | tuple[int, ...]
    consolidate: Consolidate | None = None

    @property
    def file(self) -> Path:
        """Path of its result file, relative to the folder of results."""
        names = [self.data, self.variant, f"{self.learner}-o{self.order}-s{self.seed}.json"]
        return Path(*(_NOT_IN_A_NAME.sub("_", _spelled(name)).lstrip(".") for name in names if name))

    @property
    def asked(self) -> str:
        """Digest of everything the run specifies, to detect results of a changed experiment file."""
        parts = {
            "source": self.source.model_dump(mode="json", exclude_defaults=True, exclude={"stream"}),
            "stream": self.stream.model_dump(mode="json", exclude_defaults=True),
            "settings": self.settings.model_dump(mode="json", exclude_unset=True),
            "evaluate_after": self.evaluate_after,
            **({"consolidate": self.consolidate} if self.consolidate else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def given(self) -> dict[str, Any]:
        """The settings passed to its workspace, nested; all others have their defaults."""
        settings = self.settings.model_dump(mode="json", exclude_unset=True)
        if not METHODS[self.settings.method.name].tunes:
            # Without modules, the default number of frozen layers leaves most layers for features.
            settings["backbone"].pop("frozen_layers", None)
        return settings

    def __str__(self) -> str:
        parts = [self.data, self.variant, self.learner, f"order {self.order}"]
        return ", ".join(part for part in parts if part) + (f", seed {self.seed}" if self.seed else "")


def _of_learner(name: str, variant: str, shared: Settings, given: Mapping[str, Any]) -> Settings:
    """Return the settings of a learner, including those of all learners, without the budget."""
    where = f"learner {name!r}" + (f" in variant {variant!r}" if variant else "")
    if "method" not in nested(given):
        raise ConfigError(f"learner {name!r} names no method; available: {', '.join(METHODS)}")
    for key, reason in _ELSEWHERE.items():
        if key in _dotted(given) and key != "method":
            raise ConfigError(f"learner {name!r} cannot contain {key}: {reason}")
    return _changed(where, shared, given)


def _changed(where: str, settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Return changed settings; an error message starts with `where`."""
    try:
        return settings.changed(given)
    except (ConfigError, UnknownNameError) as error:
        raise type(error)(f"{where}: {error}") from None


def _dotted(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted names; a backbone given as a string means its name."""
    dotted = flat(nested(given))
    if "backbone" in dotted:
        dotted["backbone.name"] = dotted.pop("backbone")
    return dotted


def _names(settings: Settings) -> dict[str, bool]:
    """Return the dotted names of all settings, and whether each belongs to the budget."""
    return {key: is_budget(settings, key) for key in flat(settings.to_json())}


def _loaded(path: Path) -> Any:
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the YAML file of an experiment") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: not a readable YAML file: {place}{error.problem}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from None


def _check_runs(runs: Iterable[Run]) -> None:
    """Refuse names for which two runs would share a result file. Listing the runs also checks their settings."""
    by_file: dict[Path, Run] = {}
    for run in runs:
        other = by_file.setdefault(run.file, run)
        if other is not run:
            raise ConfigError(
                f"the results of ({other}) and of ({run}) would be written to the same file, {run.file}; rename one of "
                "them so that the names differ in letters or digits"
            )


def _spelled(name: str) -> str:
    """Spell out signs that file names should not contain."""
    return name.replace("*", "-star").replace("+", "-plus")


def _check_placed(where: str, given: Iterable[str], known: Mapping[str, bool], *, budget: bool) -> None:
    """Refuse settings under the wrong key (`settings` or `budget`), naming the right one.

    Args:
        where: The key of the settings.
        given: Their dotted names.
        known: All settings of any learner, and whether each belongs to the budget.
        budget: Whether `where` is for settings of the budget, or for the others.
    """
    fitting = sorted(key for key, is_of_budget in known.items() if is_of_budget == budget and not _elsewhere(key))
    wrong = []
    for key in given:
        if reason := _elsewhere(key):
            wrong.append(f"{key} ({reason})")
        elif known.get(key, budget and key not in dict(COMPONENTS)) != budget:
            wrong.append(f"{key} (it belongs under {'settings' if budget else 'budget'})")
        elif budget and key not in known:
            wrong.append(f"{key}{did_you_mean(key, fitting)}")
    if wrong:
        raise ConfigError(f"{where} cannot contain {', '.join(wrong)}; allowed: {', '.join(fitting)}")


def _elsewhere(key: str) -> str | None:
    """Return why a setting is not allowed under `settings` or `budget`, or None if it is."""
    return _ELSEWHERE.get(key) or _ELSEWHERE.get(key.partition(".")[0])


def _check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        meant = did_you_mean(unknown[0], known)
        raise ValueError(f"no {kind} {', '.join(unknown)}{meant}; available: {', '.join(known)}")
