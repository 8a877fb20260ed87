"""The settings of a workspace and of one task, nested by the part that owns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from conpet.config.base import NonEmpty, Positive, Sectioned, StrictModel, nested, parse
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

METHOD = ChosenBy("conpet.methods:METHODS", MethodConfig)
MODULE = ChosenBy("conpet.modules.kinds:MODULE_KINDS", ModuleConfig)
HEAD = ChosenBy("conpet.heads:HEADS", HeadConfig)
SELECTOR = ChosenBy("conpet.selectors:SELECTORS", SelectorConfig)
FUSION = ChosenBy("conpet.fusion:FUSIONS", FusionConfig)
SCHEDULE = ChosenBy("conpet.replay:SCHEDULES", ScheduleConfig)


class BackboneConfig(StrictModel):
    """The frozen model, and where it is cut.

    Attributes:
        name: An embedded model's name, `tiny-random`, a local folder, or a hub id.
        dtype: Number format of the frozen weights and the states; "auto" is bfloat16 where the machine computes it
            faster than float32.
        device: A torch device, or "auto": CUDA where there is a GPU.
        frozen_layers: Number of layers in the prefix. PET modules sit on the layers above; 0 adapts every layer. None:
            all but the top fifth.
        max_tokens: Longer inputs are cut to this many tokens, around the marked spans.
        cache: Whether prefix states are kept on disk.
        warmup: "first-task": tune a module on all layers with the first task, then freeze it as part of the backbone.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"max_tokens"})

    name: str = "smollm2-135m"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    frozen_layers: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=8)] = 128
    cache: bool = True
    warmup: Literal["none", "first-task"] = "none"


class FeaturesConfig(StrictModel):
    """What selector, classifiers and heads read of the frozen states.

    Attributes:
        layers: Layers after which the mean over tokens is taken as frozen features. None: three depths of the prefix.
        projection: Width M of the random ReLU projection that the closed-form selector and `ranpac` read.
        pooling: How an example is represented for heads: by its state at the slot ("slot", as in the paper); with the
            mean over its tokens beside it ("slot+mean"); or the same for plain text, and by the means over the marked
            spans for relations and mentions ("marked").
    """

    layers: tuple[Positive, ...] | None = None
    projection: Annotated[int, Field(ge=16, le=16384)] = 2048
    pooling: Literal["slot", "slot+mean", "marked"] = "marked"


class TrainingConfig(StrictModel):
    """How modules and heads are trained.

    Attributes:
        epochs: Passes over the new examples.
        max_steps: Bound on the optimiser steps of one task's module, or None.
        batch_size: Examples per optimiser step.
        learning_rate: Highest learning rate of AdamW. It warms up over 10% of the steps, then falls linearly to 0.
        weight_decay: AdamW's decoupled weight decay.
        micro_batch_tokens: Padded tokens (at least one example) whose activations are kept at once, or None for no
            bound. A larger batch passes the suffix in parts, which are computed again for their gradients: the same
            result in less memory, for one more forward pass.
        offload_activations: Whether activations wait in the host's memory until their gradients are due. Matters on a
            GPU only.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"epochs", "max_steps", "batch_size", "learning_rate", "weight_decay"})

    epochs: Positive = 5
    max_steps: Positive | None = None
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    micro_batch_tokens: Positive | None = None
    offload_activations: bool = False


class ReplayConfig(StrictModel):
    """Which past examples are kept, and how they are drawn.

    Attributes:
        schedule: How past examples are drawn: a name in `conpet.replay.SCHEDULES`, or a mapping with its settings.
        retention: Which examples stay where the memory has a limit: "reservoir", "class-balanced" or "k-means".
        memory_examples: Limit of the replay memory in training examples over all tasks, or None.
        memory_bytes: Limit of the replay memory in bytes of text (of states with `latent_only`), or None.
        memory_per_label: Examples of every label in the memory of the schedule "fixed".
        latent_only: Whether of past examples only prefix states are kept, and never a text.
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


class TaskSettings(Sectioned):
    """What may be set for one task; the rest is taken from the workspace.

    Attributes:
        module: The PET module.
        head: What the task ends in.
        training: How module and head are trained.
    """

    module: Annotated[SerializeAsAny[ModuleConfig], MODULE] = Field(default_factory=MODULE.default)
    head: Annotated[SerializeAsAny[HeadConfig], HEAD] = Field(default_factory=HEAD.default)
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def about_unknown(cls, key: str) -> str | None:
        """Say of a section of the workspace that it cannot be set for a task."""
        if cls is TaskSettings and key in Settings.model_fields:
            return f"{key!r} is set for a whole workspace, not for a task; for a task: {', '.join(cls.model_fields)}"
        return None


class Settings(TaskSettings):
    """All settings of a workspace. Fixed when it is created, except for what `ConPET.tune` and `upgrade` choose.

    `None` means: derived from the backbone when the workspace is created.

    Attributes:
        backbone: The frozen model.
        features: What is read of the frozen states.
        method: How tasks are learned.
        selector: How the tasks are found that an input may belong to.
        fusion: How scores become one ranking.
        replay: Which past examples are kept and drawn.
        seed: Seed of everything random.
    """

    shorthand: ClassVar[Mapping[str, str]] = {"backbone": "name", "replay": "schedule"}
    """Sections for which a string stands, and the field it fills; of components it fills their name."""

    backbone: BackboneConfig = BackboneConfig()
    features: FeaturesConfig = FeaturesConfig()
    method: Annotated[SerializeAsAny[MethodConfig], METHOD] = Field(default_factory=METHOD.default)
    selector: Annotated[SerializeAsAny[SelectorConfig], SELECTOR] = Field(default_factory=SELECTOR.default)
    fusion: Annotated[SerializeAsAny[FusionConfig], FUSION] = Field(default_factory=FUSION.default)
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
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

    def for_task(self, overrides: Mapping[str, Any]) -> TaskSettings:
        """Return the settings of one task: the workspace's with the task's own in their place.

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
        """Return the settings with some changed, nested or by dotted keys; errors as in `for_task`."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return parse(type(self), _merged(type(self), own, nested(changes)))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; `parse` takes it back."""
        return self.model_dump(mode="json")


def _merged(cls: type[StrictModel], own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for `cls` in which changes take the place of what is there, field by field.

    A component under another name keeps only what all components of its kind have.
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
        fields = {one: getattr(value, one) for one in value.model_fields_set}
        if choice and change.get(choice.base.key, getattr(value, choice.base.key)) != getattr(value, choice.base.key):
            fields = {one: fields[one] for one in choice.base.model_fields if one in fields}
        merged[name] = _merged(type(value), fields, change)
    return merged


class DesignChoices(StrictModel):
    """What `conpet tune` chooses among; the design in force is always tried as well.

    Attributes:
        adapted: Shares of the layers, from the top, that carry modules: they decide `backbone.frozen_layers`.
        ranks: LoRA ranks.
        targets: Sets of linear maps that get LoRA; None: all of them, and those PEFT takes for the architecture.
        learning_rates: Lowest and highest learning rate, drawn uniformly on a logarithmic scale.
        epochs: Most passes over the examples.
        warmups: Values of `backbone.warmup`.
    """

    noun = "choice"

    adapted: NonEmpty[Annotated[float, Field(gt=0, le=1)]] = (0.1, 0.2, 0.5, 1.0)
    ranks: NonEmpty[Positive] = (2, 4, 8, 16, 32)
    targets: NonEmpty[Literal["all-linear"] | NonEmpty[str]] | None = None
    learning_rates: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1e-4, 3e-3)
    epochs: Positive = 12
    warmups: NonEmpty[Literal["none", "first-task"]] = ("none", "first-task")

    @model_validator(mode="after")
    def _check(self) -> Self:
        lowest, highest = self.learning_rates
        if lowest > highest:
            raise ValueError(f"learning_rates: the lowest, {lowest:g}, is above the highest, {highest:g}")
        return self


def choice_at(section: str) -> ChosenBy | None:
    """Return how the component of a section ("selector", "replay.schedule") is chosen; None where there is none."""
    cls: type[StrictModel] = Settings
    *above, name = section.split(".")
    for part in above:
        found = cls.model_fields[part].annotation
        assert isinstance(found, type) and issubclass(found, StrictModel)  # noqa: S101, PT018
        cls = found
    return next((mark for mark in cls.model_fields[name].metadata if isinstance(mark, ChosenBy)), None)


def is_budget(settings: Settings, key: str) -> bool:
    """Tell whether a setting, by its dotted key, says how much is trained or kept rather than what."""
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
    "DesignChoices",
    "FeaturesConfig",
    "ReplayConfig",
    "Settings",
    "TaskSettings",
    "TrainingConfig",
]
