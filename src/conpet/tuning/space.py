"""The designs that a search may choose in a workspace, and their conversion to and from Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from conpet.backbone.backbone import Backbone
from conpet.config import DesignChoices, Settings
from conpet.errors import ConfigError
from conpet.methods.base import Method
from conpet.modules.kinds import MODULE_KINDS, check_module
from conpet.modules.kinds.base import ModuleKind
from conpet.modules.sublayers import linear_maps
from conpet.report.design import Design
from conpet.state.state import State

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_JOIN = ","


@dataclass(frozen=True)
class SearchSpace:
    """The designs that a search draws from; an empty choice is not searched.

    Attributes:
        before: The present design.
        frozen_layers: Numbers of frozen layers.
        ranks: LoRA ranks.
        targets: Sets of linear maps, as text.
        learning_rates: Lowest and highest learning rate.
        most_epochs: Highest number of epochs.
        warmups: Values of the setting `backbone.warmup`.
        notes: What is not searched, and why.
    """

    before: Design
    frozen_layers: tuple[int, ...]
    ranks: tuple[int, ...]
    targets: tuple[str, ...]
    learning_rates: tuple[float, float]
    most_epochs: int
    warmups: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, method: Method, state: State, choices: DesignChoices) -> SearchSpace:
        """Return the designs to choose from in a workspace.

        Once a task was learned, frozen layers and warm-up are fixed, because states and statistics of learned tasks
        depend on them; with one module for all tasks, so is the shape of the module. Rank and targets are not searched
        for a kind of module without them.

        Raises:
            ConfigError: The workspace's method trains no module, or a target is not a linear map of the backbone.
        """
        settings = method.settings
        if not method.tunes:
            raise ConfigError(
                f"method {settings.method.name!r} trains no module: there is no design to search for; "
                "use another method (`conpet init --method`)"
            )
        backbone, before = method.backbone, design_of(settings)
        empty = not state.tasks and not state.shared
        shape_free = empty or method.module_per_task
        notes = []
        if not empty:
            notes.append(
                "frozen layers and warm-up stay unchanged: states and statistics of learned tasks depend on them"
            )
        if not shape_free:
            notes.append(f"rank and targets stay unchanged: method {settings.method.name} has one module for all tasks")
        ranks = _with(before.rank, choices.ranks)
        targets = _with(before.targets, _targets(method, choices))
        lowest, highest = choices.learning_rates
        return cls(
            before=before,
            frozen_layers=_with(before.frozen_layers, _frozen_layers(backbone, choices)) if empty else (),
            ranks=ranks if shape_free and _matter(method, "rank", ranks) else (),
            targets=tuple(map(_text, targets)) if shape_free and _matter(method, "targets", targets) else (),
            learning_rates=(lowest, highest),
            most_epochs=choices.epochs,
            warmups=_with(before.warmup, choices.warmups) if empty else (),
            notes=tuple(notes),
        )

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions, by the name of the setting."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        drawn: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values)
            for name, values in (
                ("frozen_layers", self.frozen_layers),
                ("rank", self.ranks),
                ("targets", self.targets),
                ("warmup", self.warmups),
            )
            if values
        }
        drawn["learning_rate"] = FloatDistribution(*self.learning_rates, log=True)
        drawn["epochs"] = IntDistribution(1, self.most_epochs, log=True)
        return drawn

    @cached_property
    def first(self) -> dict[str, Any]:
        """The present design in Optuna's form; values outside the space are moved to the nearest value inside."""
        lowest, highest = self.learning_rates
        values = self.before.model_dump() | {
            "targets": _text(self.before.targets),
            "learning_rate": min(max(self.before.learning_rate, lowest), highest),
            "epochs": min(self.before.epochs, self.most_epochs),
        }
        return {name: values[name] for name in self.distributions}

    def design(self, drawn: Mapping[str, Any]) -> Design:
        """Return the design of a draw, with learning rates of two digits; what is not searched does not change."""
        if drawn == self.first:
            return self.before
        values = dict(drawn)
        if "targets" in values:
            values["targets"] = _names(values["targets"])
        return self.before.model_copy(update={**values, "learning_rate": float(f"{drawn['learning_rate']:.2g}")})

    def warms_up(self, design: Design) -> bool:
        """Return whether a design needs a new warm-up: not if the workspace's warm-up is fixed."""
        return bool(self.warmups) and design.warmup != "none"


def design_of(settings: Settings) -> Design:
    """Return the design in the settings."""
    return Design(
        frozen_layers=settings.backbone.frozen_layers or 0,
        rank=getattr(settings.module, "rank", None),
        targets=getattr(settings.module, "targets", None),
        learning_rate=settings.training.learning_rate,
        epochs=settings.training.epochs,
        warmup=settings.backbone.warmup,
    )


def _frozen_layers(backbone: Backbone, choices: DesignChoices) -> tuple[int, ...]:
    layers = backbone.cut.layers
    return tuple(layers - max(1, round(layers * share)) for share in choices.adapted) if layers else ()


def _matter(method: Method, name: str, values: Iterable[Any]) -> bool:
    """Return whether these values of a setting give different modules of the workspace's kind."""
    config = method.settings.module
    if name not in type(config).model_fields:
        return False
    kind: ModuleKind = MODULE_KINDS[config.kind]()
    others = [method.settings.for_task({f"module.{name}": value}).module for value in values]
    documents = [kind.document(method.backbone, other) for other in others]
    return any(document != documents[0] for document in documents)


def _targets(method: Method, choices: DesignChoices) -> tuple[str | tuple[str, ...], ...]:
    """Return the sets of linear maps to choose from."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    backbone = method.backbone
    if choices.targets is not None:
        for targets in choices.targets:
            check_module(backbone, method.settings.for_task({"module.targets": targets}).module)
        return choices.targets
    config: Any = backbone.cut.model.config
    usual = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(config.model_type, ())
    present = set(linear_maps(backbone))
    return ("all-linear", *(names for names in (tuple(usual), *_ATTENTION) if names and present.issuperset(names)))


_ATTENTION = (("q_proj", "v_proj"), ("query", "value"))
"""Names of the query and value maps in most architectures."""


def _with(value: Any, others: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((value, *others)))


def _text(targets: str | tuple[str, ...] | None) -> str:
    return targets if isinstance(targets, str) else _JOIN.join(targets or ())


def _names(text: str) -> str | tuple[str, ...]:
    return text if text == "all-linear" else tuple(text.split(_JOIN))
