"""The settings of a workspace and of one task: frozen, typed, unknown keys rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from conpet.errors import ConfigError, did_you_mean

_TRAINING = frozenset(
    {
        "dropout",
        "epochs",
        "max_steps",
        "batch_size",
        "training_tokens",
        "offload_activations",
        "learning_rate",
        "weight_decay",
    }
)
"""Task settings that say how a module is trained, not what it is."""
Positive = Annotated[int, Field(ge=1)]
Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(min_length=1)]
Parsed = TypeVar("Parsed", bound="StrictModel")


class StrictModel(BaseModel):
    """Values a user gives: typed, checked, unknown ones rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    noun: ClassVar[str] = "setting"
    """What messages call a field."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check values given by a user.

        Raises:
            ConfigError: One is unknown or out of range; every such one is named.
        """
        return _parse(cls, values)


class MethodOptions(StrictModel):
    """What may be set for one method alone: none, but where a method says otherwise."""

    noun = "option"


class DesignChoices(StrictModel):
    """Among what `conpet tune` chooses; the design in force is always tried as well.

    Attributes:
        adapted: Shares of the layers, from the top, that carry modules: what `split` follows from.
        ranks: LoRA ranks.
        targets: Sets of linear maps that get LoRA; None: all of them, and those PEFT takes for the architecture.
        learning_rates: Lowest and highest learning rate, drawn uniformly on a logarithmic scale.
        epochs: Most passes over the examples.
        warmups: Whether to warm up.
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


class TaskSettings(StrictModel):
    """What may be set for one task, else taken from the workspace.

    Attributes:
        pet: Kind of PET module, of `conpet.modules.kinds.MODULE_KINDS`.
        rank: LoRA rank r.
        alpha: LoRA alpha; an update is scaled by alpha / rank.
        dropout: Dropout on the input of the LoRA maps, in training.
        rslora: Whether LoRA updates are scaled by alpha / sqrt(rank) instead (rsLoRA).
        dora: Whether LoRA also trains the length of every row of the maps it updates (DoRA).
        targets: Leaf names of the linear maps that get LoRA (`("q_proj", "k_proj")`), or "all-linear". Of (IA)3: of
            those that get a vector; "all-linear" is then its paper's choice.
        bottleneck: Width of bottleneck adapters.
        prefix_tokens: Number of keys and values that prefix tuning puts before the tokens.
        epochs: Passes over the new examples.
        max_steps: Bound on the optimiser steps of one task's module, or None.
        batch_size: Examples per optimiser step.
        training_tokens: Padded tokens (at least one example) whose activations training keeps at once, or None for no
            bound. A larger batch passes the suffix in parts, which are computed once more for their gradients: the same
            learning in less memory, for one more pass forwards.
        offload_activations: Whether what training keeps for the gradients waits in the host's memory, copied there and
            back while a GPU computes. On the CPU it is there anyway.
        learning_rate: Highest learning rate of AdamW; it warms up over 10% of the steps, then falls linearly to 0.
        weight_decay: AdamW's decoupled weight decay.
    """

    pet: str = "lora"
    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    dora: bool = False
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    bottleneck: Positive = 16
    prefix_tokens: Positive = 16
    epochs: Positive = 5
    max_steps: Positive | None = None
    batch_size: Positive = 8
    training_tokens: Positive | None = None
    offload_activations: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01

    @property
    def shape(self) -> dict[str, Any]:
        """What decides which parameters a module has, by name: all that does not only say how they are trained."""
        return {name: getattr(self, name) for name in TaskSettings.model_fields if name not in _TRAINING}

    @model_validator(mode="after")
    def _check(self) -> TaskSettings:
        if self.targets == ():
            raise ValueError('targets is empty: name at least one linear map, or "all-linear"')
        return self


class Settings(TaskSettings):
    """All settings of a workspace. Fixed when it is made, but for what `ConPET.tune` chooses.

    `None` means: found out from the backbone when the workspace is made.

    Attributes:
        backbone: An embedded model's name, `tiny-random`, a local folder, or a hub id.
        method: The learner.
        options: What is set for this method alone; each method's own `Options` says what there is.
        dtype: Number format of the frozen weights and the states; "auto" is bfloat16 where the machine computes it
            faster than float32.
        device: A torch device, or "auto" (CUDA if there).
        split: Number of frozen layers at the bottom (the prefix); PET modules sit on the layers above.
        feature_layers: Layers behind which the tokens' mean is taken as frozen features.
        max_tokens: Longer inputs are cut to this many tokens, around the marked spans.
        pooling: How an example is represented: by its state at the slot ("slot", the paper's), with the mean over its
            tokens beside that ("slot+mean"), or the same but for examples with marked spans, which are represented by
            the means over these ("marked"); see `conpet.backbone.pooling`.
        projection: Width M of the random ReLU projection behind the closed-form selector and `projected-ridge`.
        selector: What finds the task of an input.
        top_k: Number of pre-selected tasks whose modules are run for an input.
        rule: How scores of several modules become one ranking over all labels: "paper" or "calibrated".
        selector_rank: LoRA rank of the learned selector.
        selector_steps: Optimiser steps the learned selector gets per task, however many tasks there are.
        selector_learning_rate: Its highest learning rate.
        memory_examples: Bound on the replay memory in examples over all tasks, or None for all.
        memory_bytes: Bound on the replay memory in bytes of text (of states with `latent_only`), or None.
        memory_per_label: Examples of every label in the memory of `replay="fixed"`.
        replay: How past examples are drawn: "fixed", "dynamic" or "adaptive".
        retention: Which examples stay where the memory has a bound: "reservoir", "class-balanced" or "k-means".
        latent_only: Whether of past examples only prefix states are kept, and never a text.
        calibration_examples: Held-out examples the calibration is fitted on per task, half of them of old tasks.
        cache: Whether prefix states are kept on disk.
        warmup: Whether a module on all layers is tuned with the first task and then frozen as part of the backbone.
        seed: Seed of everything random.
    """

    backbone: str = "smollm2-135m"
    method: str = "dynamic"
    options: Mapping[str, JsonValue] = {}
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    split: Annotated[int, Field(ge=0)] | None = None
    feature_layers: tuple[Positive, ...] | None = None
    max_tokens: Annotated[int, Field(ge=8)] = 128
    pooling: Literal["slot", "slot+mean", "marked"] = "marked"
    projection: Annotated[int, Field(ge=16, le=16384)] = 2048
    selector: str = "closed-form"
    top_k: Positive = 1
    rule: Literal["paper", "calibrated"] = "calibrated"
    selector_rank: Positive = 8
    selector_steps: Positive = 100
    selector_learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    memory_examples: Positive | None = None
    memory_bytes: Positive | None = None
    memory_per_label: Positive = 10
    replay: str = "dynamic"
    retention: str = "reservoir"
    latent_only: bool = False
    calibration_examples: Positive = 400
    warmup: Literal["none", "first-task"] = "none"
    cache: bool = True
    seed: int = 0

    def for_task(self, overrides: Mapping[str, Any]) -> TaskSettings:
        """Return the settings of one task: the workspace's with the task's own in their place.

        Raises:
            ConfigError: An override is unknown at task level or out of range.
        """
        base = {name: getattr(self, name) for name in TaskSettings.model_fields}
        return _parse(TaskSettings, base | dict(overrides))


def _parse(cls: type[Parsed], values: Mapping[str, Any]) -> Parsed:
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, cls)) from None


def _explain(error: ValidationError, cls: type[StrictModel]) -> str:
    lines = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            *above, key = one["loc"]
            holder = _class_at(cls, above) or cls
            known = sorted(holder.model_fields)
            if holder is TaskSettings and key in Settings.model_fields:
                lines.append(f"{name!r} is set for a whole workspace, not for a task; of a task: {', '.join(known)}")
                continue
            meant = did_you_mean(str(key), known)
            lines.append(f"unknown {holder.noun} {name!r}{meant}; have: {', '.join(known) or 'none'}")
        elif not name:
            lines.append(one["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{cls.noun} {name!r}: {one['msg']} (got {one['input']!r})")
    return "; ".join(dict.fromkeys(lines))


def _class_at(kind: Any, path: Sequence[int | str]) -> type[StrictModel] | None:
    """Return the class of the values that stand at a path of keys below a value of a kind."""
    if isinstance(kind, type) and issubclass(kind, StrictModel):
        return _class_at(kind.model_fields[str(path[0])].annotation, path[1:]) if path else kind
    if get_origin(kind) is Mapping:
        return _class_at(get_args(kind)[1], path[1:])
    return next(filter(None, (_class_at(one, path) for one in get_args(kind))), None)
