"""An experiment as data: one YAML file, and the runs it asks for."""

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
from conpet.data.labelled import PerLabel
from conpet.data.recipe import StreamRecipe
from conpet.errors import ConfigError, UnknownNameError, did_you_mean
from conpet.methods import METHODS

_SEED_STEP = 1000
_NOT_IN_A_NAME = re.compile(r"[^\w.=-]+")
_ELSEWHERE = {
    "backbone.name": "the key 'backbone' of the experiment or of a variant names it",
    "method": "a learner names it",
    "seed": "it follows from 'seeds' and 'orders'",
}
"""Settings that an experiment does not give under `settings` or `budget`, and where they come from."""


class Source(StrictModel):
    """How much of a data set is used, and how it becomes a stream.

    Attributes:
        train: Most training examples of a label; None: all.
        validation: Most validation examples of a label.
        test: Most test examples of a label.
        out_of_scope: Number of out-of-scope inputs that are told from test inputs; None: that is not measured.
        first_tasks: Number of tasks that are learned, in the order of the source; None: all.
        measured_on: Where accuracy is measured: on "test" examples, or, for experiments by which something is chosen,
            on half of the "validation" examples of every label in their place.
        stream: Its own recipe in place of the experiment's.
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
        """How many examples of a label."""
        return PerLabel(self.train, self.validation, self.test)


class Variant(StrictModel):
    """What one variant of an experiment changes.

    Attributes:
        stream: The recipe, for all data sets.
        backbone: The backbone.
        settings: Settings added to the experiment's, or in their place.
        budget: Budget settings added to the experiment's, or in their place.
        learners: Names of the learners it is run with; None: all.
        data: Names of the data sets it is run on; None: all.
    """

    noun = "key of a variant"

    stream: StreamRecipe | None = None
    backbone: str | None = None
    settings: Mapping[str, JsonValue] = {}
    budget: Mapping[str, JsonValue] = {}
    learners: tuple[str, ...] | None = None
    data: tuple[str, ...] | None = None


class Experiment(StrictModel):
    """What an experiment file says.

    Attributes:
        title: What is to be found out, in a line.
        data: Data set (one of `conpet bench data list`, or a path seen from the file) to how much of it is used.
        stream: How data become a stream.
        orders: Number of orders of the tasks: 0 is that of the source, the others are shuffled.
        seeds: Number of seeds for each order.
        backbone: The frozen model.
        settings: Settings of all learners, nested by section: module, frozen layers and so on.
        budget: Settings of how much is trained and kept, nested too; equal for all learners, unless one gives its own.
            Which settings these are, the `budget` of each settings class says. A learner whose components do not have
            a setting (the steps of another selector) is run without it.
        learners: Name of a learner to its own settings, which count most: `method` at least, by its name or as a
            section with its options.
        variants: Name to what is changed, where several settings of the experiment are compared.
        metrics: Columns of its table.
        evaluate_after: After which tasks it is evaluated: every one, the last, or those of these numbers. Numbers have
            the time of a prediction measured as well.
        full: Keys to be replaced where the whole experiment is asked for (`--full`).
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
    full: Mapping[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_names("metric", self.metrics, METRICS)
        for variant in self.variants.values():
            _check_names("learner", variant.learners or (), self.learners)
            _check_names("data set", variant.data or (), self.data)
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check the content of an experiment file; dots in names of data sets, learners and variants are theirs.

        Raises:
            ConfigError: Something in it is unknown or wrong; the message names it.
        """
        return parse(cls, values)

    @classmethod
    def read(cls, path: Path, *, full: bool = False) -> Self:
        """Read an experiment file.

        Args:
            path: The YAML file.
            full: Whether the keys under `full` replace those beside it.

        Raises:
            ConfigError: It cannot be read, or something in it is unknown or wrong.
        """
        given = _loaded(path)
        if not isinstance(given, dict):
            raise ConfigError(f"{path}: an experiment is a mapping of keys: {', '.join(cls.model_fields)}")
        if full and not given.get("full"):
            raise ConfigError(f"{path} says nothing of a full size: it has no key 'full'")
        try:
            experiment = cls.parse(given | given["full"] if full else given)
            _check_runs(experiment.runs(path.stem))
        except (ConfigError, UnknownNameError) as error:
            raise ConfigError(f"{path}: {error}") from None
        return experiment

    def runs(self, name: str) -> Iterator[Run]:
        """Return all runs, order by order, so that what is there after an interruption compares all learners.

        Args:
            name: Name of the experiment.

        Raises:
            ConfigError: A setting is unknown or out of range, or a method is missing.
            UnknownNameError: There is no such method.
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
        )

    def _budget(self, variant: str) -> dict[str, Any]:
        """Return the budget of a variant by dotted names."""
        return _dotted(self.budget) | _dotted(self.variants[variant].budget)

    def _settings(self, variant: str) -> dict[str, Settings]:
        """Return the settings of every learner of a variant, by the learner's name.

        What is nearer to the learner counts: its own settings, then the variant's, then the experiment's.
        """
        changes = self.variants[variant]
        shared = Settings.parse({"backbone.name": changes.backbone or self.backbone})
        for given in (self.settings, changes.settings):
            shared = _changed("settings", shared, given)
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
        found = {}
        for name, settings in learners.items():
            own, names = _dotted(self.learners[name]), _names(settings)
            applied = {key: value for key, value in budget.items() if key in names and key not in own}
            found[name] = _changed("budget", settings, applied)
        return found


@dataclass(frozen=True, eq=False)
class Run:
    """One learner on one stream in one order with one seed.

    Attributes:
        experiment: Name of the experiment.
        data: Name of the data set, or its path.
        variant: Name of the variant.
        learner: Name of the learner.
        order: Number of the order of tasks.
        seed: Number of the seed.
        source: How much of the data is used.
        stream: How they become a stream.
        backbone: The frozen model.
        budget: Settings of how much is trained and kept, nested, as they are given to all learners.
        settings: Settings of its workspace.
        evaluate_after: As in `Experiment`.
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

    @property
    def file(self) -> Path:
        """Path of its result file below the folder of the experiment's results."""
        names = [self.data, self.variant, f"{self.learner}-o{self.order}-s{self.seed}.json"]
        return Path(*(_NOT_IN_A_NAME.sub("_", _spelled(name)).lstrip(".") for name in names if name))

    @property
    def asked(self) -> str:
        """Digest of all that is asked for; whether its result is still that of the experiment file is told by it."""
        parts = {
            "source": self.source.model_dump(mode="json", exclude_defaults=True, exclude={"stream"}),
            "stream": self.stream.model_dump(mode="json", exclude_defaults=True),
            "settings": self.settings.model_dump(mode="json", exclude_unset=True),
            "evaluate_after": self.evaluate_after,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def given(self) -> dict[str, Any]:
        """Settings that its workspace is given, nested; all others have their defaults."""
        given = self.settings.model_dump(mode="json", exclude_unset=True)
        if not METHODS[self.settings.method.name].tunes:
            # Without modules, the default cut leaves most layers to take features from.
            given["backbone"].pop("frozen_layers", None)
        return given

    def __str__(self) -> str:
        named = [self.data, self.variant, self.learner, f"order {self.order}"]
        return ", ".join(part for part in named if part) + (f", seed {self.seed}" if self.seed else "")


def _of_learner(name: str, variant: str, shared: Settings, given: Mapping[str, Any]) -> Settings:
    """Return the settings of a learner, those for all learners included, without the budget."""
    where = f"learner {name!r}" + (f" in variant {variant!r}" if variant else "")
    if "method" not in nested(given):
        raise ConfigError(f"learner {name!r} names no method; have: {', '.join(METHODS)}")
    for key, reason in _ELSEWHERE.items():
        if key in _dotted(given) and key != "method":
            raise ConfigError(f"learner {name!r} cannot hold {key}: {reason}")
    return _changed(where, shared, given)


def _changed(where: str, settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Return settings with others in their place; what is wrong with these is said with where they are given."""
    try:
        return settings.changed(given)
    except (ConfigError, UnknownNameError) as error:
        raise type(error)(f"{where}: {error}") from None


def _dotted(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted names; a backbone given as a string is its name."""
    found = flat(nested(given))
    if "backbone" in found:
        found["backbone.name"] = found.pop("backbone")
    return found


def _names(settings: Settings) -> dict[str, bool]:
    """Return the dotted names of all settings, with whether they are of the budget."""
    return {key: is_budget(settings, key) for key in flat(settings.to_json())}


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary of a mapping; keys it merges (`<<`) may be given anew."""
        own: list[Any] = []
        for key, _ in node.value:
            if key.value in own:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge":
                own.append(key.value)
        return super().construct_mapping(node, deep)


def _loaded(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - it is a safe loader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name the YAML file of an experiment") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: not a readable YAML file: {place}{error.problem}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from None


def _check_runs(runs: Iterable[Run]) -> None:
    """Refuse names that would have one run overwrite the result of another; to list runs checks their settings."""
    named: dict[Path, Run] = {}
    for run in runs:
        other = named.setdefault(run.file, run)
        if other is not run:
            raise ConfigError(
                f"the results of ({other}) and of ({run}) would stand in the same file, {run.file}; give one of them "
                "a name that differs in letters or digits"
            )


def _spelled(name: str) -> str:
    """Write out the signs that tell learners apart and that file names should not have."""
    return name.replace("*", "-star").replace("+", "-plus")


def _check_placed(where: str, given: Iterable[str], known: Mapping[str, bool], *, budget: bool) -> None:
    """Refuse settings that do not belong under `settings` or `budget`, each with the key where they do.

    Args:
        where: The key they are given under.
        given: Their dotted names.
        known: The names of all settings that any learner has, with whether they are of the budget.
        budget: Whether settings of the budget belong here, or the others.
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
        raise ConfigError(f"{where} cannot hold {', '.join(wrong)}; have: {', '.join(fitting)}")


def _elsewhere(key: str) -> str | None:
    """Say where a setting comes from that an experiment gives neither under `settings` nor under `budget`."""
    return _ELSEWHERE.get(key) or _ELSEWHERE.get(key.partition(".")[0])


def _check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        meant = did_you_mean(unknown[0], known)
        raise ValueError(f"no {kind} {', '.join(unknown)}{meant}; have: {', '.join(known)}")
