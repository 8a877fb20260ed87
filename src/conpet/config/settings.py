"""The settings of a workspace and of a task, nested by component."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from conpet.config.base import Epochs, NonEmpty, Positive, Sectioned, StrictModel, Width, nested, parse
from conpet.config.components import (
    ChosenBy,
    ComponentConfig,
    FusionConfig,
    HeadConfig,
    MethodConfig,
    ModuleConfig,
    ScheduleConfig,
    SelectorConfig,
)
from conpet.errors import ConfigError

METHOD = ChosenBy("conpet.methods:METHODS", MethodConfig)
MODULE = ChosenBy("conpet.modules.kinds:MODULE_KINDS", ModuleConfig)
HEAD = ChosenBy("conpet.heads:HEADS", HeadConfig)
SELECTOR = ChosenBy("conpet.selectors:SELECTORS", SelectorConfig)
FUSION = ChosenBy("conpet.fusion:FUSIONS", FusionConfig)
SCHEDULE = ChosenBy("conpet.replay:SCHEDULES", ScheduleConfig)


DEFAULT_BACKBONE = "minilm-l6"
"""Backbone of a workspace if none is named: small, fast, and on text more accurate than `smollm2-135m`."""


class BackboneConfig(StrictModel):
    """The frozen model and its frozen layers.

    Attributes:
        name: An embedded model's name, `tiny-random`, a local folder, or a hub id.
        dtype: Number format of the frozen weights and the states; "auto" is bfloat16 if the machine computes it faster
            than float32.
        device: A torch device, or "auto": CUDA if there is a GPU.
        frozen_layers: Number of layers in the prefix. PET modules are on the layers above; 0 adapts every layer. None
            means all but the top fifth.
        max_tokens: Longer inputs are truncated to this many tokens, around the marked spans.
        cache: Whether to cache prefix states on disk.
        deterministic: Whether every input is computed in passes of its own, so that its scores do not depend, to the
            last bit, on the inputs predicted with it. Slower for many inputs.
        warmup: "first-task" tunes a module on all layers with the first task, then freezes it as part of the backbone.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"max_tokens"})

    name: str = DEFAULT_BACKBONE
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    frozen_layers: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=8)] = 128
    cache: bool = True
    deterministic: bool = False
    warmup: Literal["none", "first-task"] = "none"


class FeaturesConfig(StrictModel):
    """The features of selector, classifiers and heads.

    Attributes:
        layers: Layers whose states are used as frozen features. None means four depths: of an encoder up to its last
            layer, of a causal model within the prefix.
        projection: Width M of the random ReLU projection of `ranpac`.
        pooling: How heads represent an example: the state at the slot ("slot", as in the paper); slot and mean over
            tokens ("slot+mean"); or "marked": slot and mean for plain text, head, tail and what stands between them for
            relations, slot, mention and mean for mentions.
        refit: Whether the classifiers of frozen features that answer also learn from validation examples. Everything
            that is chosen, calibrated or compared on these uses classifiers that have not seen them.
    """

    layers: tuple[Positive, ...] | None = None
    projection: Annotated[int, Field(ge=16, le=16384)] = 2048
    pooling: Literal["slot", "slot+mean", "marked"] = "marked"
    refit: bool = True


class TrainingConfig(StrictModel):
    """How modules and heads are trained.

    Attributes:
        epochs: Passes over the new examples.
        max_steps: Limit of optimiser steps per task, or None.
        batch_size: Examples per optimiser step.
        learning_rate: Peak learning rate of AdamW, with linear warm-up over 10% of the steps and linear decay to 0.
        weight_decay: AdamW's decoupled weight decay.
        micro_batch_tokens: Most padded tokens (at least one example) with activations in memory, or None for no limit.
            A larger batch is computed in parts, with a second forward pass for the gradients: the same result in less
            memory.
        offload_activations: Whether to move activations to host memory until the backward pass. Only useful on a GPU.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"epochs", "max_steps", "batch_size", "learning_rate", "weight_decay"})

    epochs: Epochs = 5
    max_steps: Positive | None = None
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    micro_batch_tokens: Positive | None = None
    offload_activations: bool = False


class ReplayConfig(StrictModel):
    """Which past examples are stored, and how they are selected for replay.

    Attributes:
        schedule: Replay schedule: a name in `conpet.replay.SCHEDULES`, or a mapping with its settings.
        retention: Which examples are retained in a limited memory: "reservoir", "class-balanced" or "k-means".
        memory_examples: Maximum number of training examples in the replay memory, over all tasks, or None.
        memory_bytes: Maximum size of the replay memory in bytes of text (of states with `latent_only`), or None.
        memory_per_label: Number of examples per label in the memory of the schedule "fixed".
        latent_only: Whether to store only prefix states of past examples, never their text.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"memory_examples", "memory_bytes", "memory_per_label"})

    schedule: Annotated[SerializeAsAny[ScheduleConfig], SCHEDULE] = Field(default_factory=SCHEDULE.default)
    retention: str = "reservoir"
    memory_examples: Positive | None = None
    memory_bytes: Positive | None = None
    memory_per_label: Positive = 10
    latent_only: bool = False

    @field_validator("retention")
    @classmethod
    def _known(cls, name: str) -> str:
        from conpet.replay import RETENTIONS

        RETENTIONS.require(name)
        return name


class ConsolidationConfig(StrictModel):
    """How a consolidation trains on the examples of all tasks.

    By default it tunes the backbone: a LoRA on all linear maps of all layers, folded into the weights. The other
    settings are those of this LoRA.

    Attributes:
        layers: "all" tunes the backbone. "top" leaves it as it is, and trains only one module for all labels on the
            layers above the cut, with the settings of the tasks' modules: it takes about a quarter of the time.
        rank: Rank of the LoRA.
        epochs: Passes over the stored examples of all tasks.
        batch_size: Examples per optimiser step. None means `training.batch_size`.
        learning_rate: Peak learning rate. None means `training.learning_rate`.
        share: Share of the LoRA that is folded in, above 0 and up to 1: the weights stay between the original and the
            tuned ones (Wortsman et al. 2022). None means 0.5 for text and mentions and 1 for relations; with several
            kinds of input, the mean over training examples.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"epochs", "batch_size", "learning_rate"})

    layers: Literal["all", "top"] = "all"
    rank: Width = 16
    epochs: Epochs = 5
    batch_size: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None

    def check_given(self, given: Collection[str]) -> None:
        """Refuse settings without effect among those `given` for one consolidation.

        Raises:
            ConfigError: One has no effect; the message names it.
        """
        ignored = sorted(set(given) - {"layers"}) if self.layers == "top" else []
        if ignored:
            names = ", ".join(f"consolidation.{name}" for name in ignored)
            raise ConfigError(
                f"with layers=top, {names} {'has' if len(ignored) == 1 else 'have'} no effect: the module for all "
                "labels is trained with the settings of the tasks' modules (sections `module` and `training`). Leave "
                f"{'it' if len(ignored) == 1 else 'them'} out, or use layers=all. Nothing was changed"
            )


class GateConfig(StrictModel):
    """When a change is refused because it would make earlier answers worse.

    Margins are falls of the accuracy on held-out (validation) examples, in points. A change is refused if a fall is
    larger than its margin with the given confidence.

    Attributes:
        label_margin: Largest accepted fall of an earlier label.
        task_margin: Largest accepted fall of an earlier task.
        whole_margin: Largest accepted fall over all earlier labels together.
        confidence: Share of the changes without such a fall that are accepted; above 0.5 and below 1.
        require_proof: Whether to refuse a change also if there are too few examples to show that no task, no label and
            not the whole falls by more than its margin.
        examples_per_label: Most held-out examples of a label that are compared.
        examples: Most held-out examples that are compared, over all labels.
        objective: "answers" to refuse a change for its margins only; "composite" to refuse it also if it makes the
            answers dearer (see `conpet cost`). That needs `prices.wrong_answer` and `prices.answers`.
    """

    label_margin: Annotated[float, Field(ge=0, lt=100)] = 10.0
    task_margin: Annotated[float, Field(ge=0, lt=100)] = 3.0
    whole_margin: Annotated[float, Field(ge=0, lt=100)] = 2.0
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    require_proof: bool = False
    examples_per_label: Positive = 30
    examples: Positive = 3000
    objective: Literal["answers", "composite"] = "answers"


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RefusalConfig(StrictModel):
    """What mistakes cost, or the coverage wanted: when a prediction answers, asks or declines (`conpet costs`).

    The costs are in any unit; only their ratios count. A refusal of an input that does belong to a learned label counts
    as an error.

    Attributes:
        error: Cost of a wrong answer.
        question: Cost of a question with a list of candidates.
        refusal: Cost of a refusal of an input that belongs to nothing learned.
        coverage: Instead of the costs: the share of inputs of learned labels for which the right label must be the
            answer or among the candidates, above 0 and below 1. None: the costs decide.
        unknown_share: Expected share of inputs that belong to nothing learned, above 0 and below 1.
        candidates: Most candidates in a question. With `coverage`, there are as many as it needs.
        held_out_examples: Most held-out examples that probabilities and thresholds are calibrated on after a change; 0
            to use training examples only.
    """

    error: Amount = 10.0
    question: Amount = 2.0
    refusal: Amount = 1.0
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = None
    unknown_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    candidates: Positive = 5
    held_out_examples: Annotated[int, Field(ge=0)] = 256


class PricesConfig(StrictModel):
    """What resources, wrong answers and delays cost, in money (`conpet costs`, `conpet cost`).

    A price that is not set counts as nothing.

    Attributes:
        currency: Name of the currency.
        cpu_hour: Price of an hour of one processor core, or None.
        gpu_hour: Price of an hour of an accelerator, or None.
        gb_month: Price of storing a gigabyte for 30 days, or None.
        kwh: Price of a kilowatt-hour, or None, also where it is part of the price of an hour.
        cpu_watts: Power that a busy core draws, with its part of the machine. Energy is estimated from it.
        gpu_watts: Power that an accelerator draws while it is held.
        review_hour: Price of an hour of people's work, or None.
        wrong_answer: Price of a wrong answer, or None.
        late_day: Price of a day on which a needed label cannot be answered yet, or None.
        answers: Number of answers over which the cost of a version is spread, or None for those that it gave.
        quality: What wrong answers are counted by: "accuracy" for wrong answers to test examples; "decisions" for the
            costs of the decisions to answer, ask or decline on validation examples (section `refusal`), where the cost
            of an error stands for `wrong_answer`.
        freshness_weight: Weight of delays in the composite score.
        update_weight: Weight of the cost of changes.
        running_weight: Weight of the cost of answering and storing.
        review_weight: Weight of people's work.
    """

    currency: Annotated[str, Field(min_length=1, max_length=12)] = "EUR"
    cpu_hour: Amount | None = None
    gpu_hour: Amount | None = None
    gb_month: Amount | None = None
    kwh: Amount | None = None
    cpu_watts: Amount = 10.0
    gpu_watts: Amount = 400.0
    review_hour: Amount | None = None
    wrong_answer: Amount | None = None
    late_day: Amount | None = None
    answers: Positive | None = None
    quality: Literal["accuracy", "decisions"] = "accuracy"
    freshness_weight: Amount = 1.0
    update_weight: Amount = 1.0
    running_weight: Amount = 1.0
    review_weight: Amount = 1.0


def switch(value: Any) -> Any:
    """Return "off" for what YAML makes of it."""
    return "off" if value is False else value


class LogConfig(StrictModel):
    """What is recorded of predictions (`conpet audit log`).

    Attributes:
        predictions: "off"; "hash", which records each prediction with a keyed hash of its input; or "text", which also
            records the input itself.
        keep_days: Days after which a record is deleted, at most 36,500, or None to keep all.
    """

    predictions: Annotated[Literal["off", "hash", "text"], BeforeValidator(switch)] = "off"
    keep_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class TaskSettings(Sectioned):
    """The settings that a task can override.

    Attributes:
        module: The PET module.
        head: The head of the task.
        training: How module and head are trained.
    """

    module: Annotated[SerializeAsAny[ModuleConfig], MODULE] = Field(default_factory=MODULE.default)
    head: Annotated[SerializeAsAny[HeadConfig], HEAD] = Field(default_factory=HEAD.default)
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def about_unknown(cls, key: str) -> str | None:
        """Say where a setting belongs that is not a section of these settings."""
        if key in Settings.model_fields:
            return f"{key!r} is a setting of the whole workspace; a task can set: {', '.join(cls.model_fields)}"
        from conpet.config.describe import describe_settings

        rows = [row for row in describe_settings() if row.name.rpartition(".")[2] == key]
        names = dict.fromkeys(row.name for row in rows if row.name.partition(".")[0] in cls.model_fields)
        return f"unknown setting {key!r}: settings have sections, use {' or '.join(names)}" if names else None


class Settings(TaskSettings):
    """All settings of a workspace. Only `ConPET.tune`, `upgrade`, `set_costs` and `set_log` change them later.

    `None` means derived from the backbone at creation.

    Attributes:
        backbone: The frozen model.
        features: The features of selector, classifiers and heads.
        method: The learning method.
        selector: How the candidate tasks of an input are found.
        fusion: How scores are combined into one ranking.
        replay: Which past examples are stored and replayed.
        consolidation: How a consolidation tunes the backbone.
        gate: When a change is refused because it would make earlier answers worse.
        refusal: When a prediction answers, asks or declines.
        prices: What resources, wrong answers and delays cost.
        log: What is recorded of predictions.
        seed: Seed of all random choices.
    """

    shorthand: ClassVar[Mapping[str, str]] = {"backbone": "name", "replay": "schedule"}
    """Sections that can be given as a string, and the field that it sets; for components it sets the name."""

    backbone: BackboneConfig = BackboneConfig()
    features: FeaturesConfig = FeaturesConfig()
    method: Annotated[SerializeAsAny[MethodConfig], METHOD] = Field(default_factory=METHOD.default)
    selector: Annotated[SerializeAsAny[SelectorConfig], SELECTOR] = Field(default_factory=SELECTOR.default)
    fusion: Annotated[SerializeAsAny[FusionConfig], FUSION] = Field(default_factory=FUSION.default)
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
    consolidation: ConsolidationConfig = ConsolidationConfig()
    gate: GateConfig = GateConfig()
    refusal: RefusalConfig = RefusalConfig()
    prices: PricesConfig = PricesConfig()
    log: LogConfig = LogConfig()
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            name: {cls.shorthand[name]: value} if name in cls.shorthand and isinstance(value, str) else value
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        self.check_recording(self.log.predictions)
        return self

    def check_recording(self, predictions: str) -> None:
        """Raise `ConfigError` if inputs of predictions would be recorded although no texts may be stored."""
        if predictions == "text" and self.replay.latent_only:
            raise ConfigError(
                "log.predictions=text records the inputs of predictions, but replay.latent_only=true stores no texts; "
                'use "hash"'
            )

    def for_task(self, overrides: Mapping[str, Any]) -> TaskSettings:
        """Return the settings of a task: the workspace's settings with the task's overrides.

        Args:
            overrides: Nested, or by dotted keys. A section that names another kind of module or head starts from that
                kind's defaults.

        Raises:
            ConfigError: An override is unknown for a task, or out of range.
            UnknownNameError: A component of that name does not exist.
        """
        own = {name: getattr(self, name) for name in TaskSettings.model_fields if name in self.model_fields_set}
        return parse(TaskSettings, _merged(TaskSettings, own, nested(overrides)))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return changed settings; changes are nested or by dotted keys. Errors as in `for_task`."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return parse(type(self), _merged(type(self), own, nested(changes)))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary for `parse`."""
        return self.model_dump(mode="json")


def _merged(cls: type[StrictModel], own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for `cls` with changes merged field by field.

    If a component gets another name, only the common settings of its kind are kept.
    """
    merged = dict(own)
    for name, change in changes.items():
        value = own.get(name)
        field = cls.model_fields.get(name)
        choice = next((mark for mark in field.metadata if isinstance(mark, ChosenBy)), None) if field else None
        if isinstance(change, str):
            key = choice.base.key if choice else getattr(cls, "shorthand", {}).get(name)
            change = {key: change} if key else change
        if not isinstance(value, StrictModel) or not isinstance(change, Mapping):
            merged[name] = change
            continue
        fields = {key: getattr(value, key) for key in value.model_fields_set}
        if choice and change.get(choice.base.key, getattr(value, choice.base.key)) != getattr(value, choice.base.key):
            fields = {key: fields[key] for key in choice.base.model_fields if key in fields}
        merged[name] = _merged(type(value), fields, change)
    return merged


class DesignChoices(StrictModel):
    """The choices of `conpet tune`; the current design is always tried too.

    Attributes:
        adapted: Fractions of the layers, from the top, that have modules; they determine `backbone.frozen_layers`.
        ranks: LoRA ranks.
        targets: Sets of linear maps that get LoRA; None for all maps, and the defaults of PEFT for the architecture.
        learning_rates: Lowest and highest learning rate, drawn uniformly on a logarithmic scale.
        epochs: Most passes over the examples.
        warmups: Values of `backbone.warmup`.
    """

    noun = "choice"

    adapted: NonEmpty[Annotated[float, Field(gt=0, le=1)]] = (0.1, 0.2, 0.5, 1.0)
    ranks: NonEmpty[Width] = (2, 4, 8, 16, 32)
    targets: NonEmpty[Literal["all-linear"] | NonEmpty[str]] | None = None
    learning_rates: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1e-4, 3e-3)
    epochs: Epochs = 12
    warmups: NonEmpty[Literal["none", "first-task"]] = ("none", "first-task")

    @model_validator(mode="after")
    def _check(self) -> Self:
        lowest, highest = self.learning_rates
        if lowest > highest:
            raise ValueError(f"learning_rates: the lowest, {lowest:g}, is above the highest, {highest:g}")
        return self


def is_budget(settings: Settings, key: str) -> bool:
    """Return whether a setting, by its dotted key, limits how much is trained or stored."""
    holder: Any = settings
    *above, name = key.split(".")
    for part in above:
        holder = getattr(holder, part, None)
    return name in getattr(holder, "budget", ())


COMPONENTS: tuple[tuple[str, ChosenBy], ...] = (
    ("method", METHOD),
    ("module", MODULE),
    ("head", HEAD),
    ("selector", SELECTOR),
    ("fusion", FUSION),
    ("replay.schedule", SCHEDULE),
)
"""Sections that hold a component chosen by name."""

__all__ = [
    "COMPONENTS",
    "BackboneConfig",
    "ComponentConfig",
    "ConsolidationConfig",
    "DesignChoices",
    "FeaturesConfig",
    "GateConfig",
    "LogConfig",
    "PricesConfig",
    "RefusalConfig",
    "ReplayConfig",
    "Settings",
    "TaskSettings",
    "TrainingConfig",
]
