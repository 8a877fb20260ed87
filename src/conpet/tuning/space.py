"""What a search may choose in a workspace as it stands, in Optuna's terms and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

from conpet.backbone.backbone import Backbone
from conpet.config import DesignChoices, Settings
from conpet.errors import ConfigError
from conpet.methods.base import Method
from conpet.modules.kinds import MODULE_KINDS, check_module
from conpet.modules.kinds.base import ModuleKind
from conpet.modules.sublayers import linear_maps
from conpet.report.design import Design

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_JOIN = ","


@dataclass(frozen=True)
class SearchSpace:
    """The designs a search draws from.

    Attributes:
        before: The design in force.
        frozen_layers: Layers to cut at; empty: the split is not searched.
        ranks: LoRA ranks; empty likewise.
        targets: Sets of linear maps, as text; empty likewise.
        learning_rates: Lowest and highest.
        most_epochs: Most passes over the examples.
        warmups: Settings `warmup`; empty likewise.
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
    def of(cls, learner: Method, choices: DesignChoices) -> SearchSpace:
        """Return what may be chosen in a workspace.

        Once anything was learned, the split and the warm-up stay as they are, for states and statistics of the learned
        tasks depend on them; and so does the module's shape where there is one module for all tasks. Rank and targets
        are left out where the workspace's kind of module has none.

        Raises:
            ConfigError: The workspace's method trains no module, or a target is no linear map of the backbone.
        """
        settings, state = learner.settings, learner.state
        if not learner.tunes:
            raise ConfigError(f"method {settings.method.name!r} trains no module: there is no design to search for")
        backbone, before = learner.backbone, design_of(settings)
        fresh = not state.tasks and not state.shared
        shaped = fresh or _shapes_differ(learner)
        notes = []
        if not fresh:
            notes.append(
                "frozen layers and warm-up stay as they are: states and statistics of learned tasks depend on them"
            )
        if not shaped:
            notes.append(
                f"rank and targets stay as they are: method {settings.method.name} has one module for all tasks"
            )
        ranks = _with(before.rank, choices.ranks)
        targets = _with(before.targets, _targets(learner, choices))
        lowest, highest = choices.learning_rates
        return cls(
            before=before,
            frozen_layers=_with(before.frozen_layers, _frozen_layers(backbone, choices)) if fresh else (),
            ranks=ranks if shaped and _matter(learner, "rank", ranks) else (),
            targets=tuple(map(_text, targets)) if shaped and _matter(learner, "targets", targets) else (),
            learning_rates=(lowest, highest),
            most_epochs=choices.epochs,
            warmups=_with(before.warmup, choices.warmups) if fresh else (),
            notes=tuple(notes),
        )

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws, by the name of the setting."""
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
        """The design in force as Optuna draws designs; what lies outside the space as the nearest value inside."""
        lowest, highest = self.learning_rates
        values = self.before.model_dump() | {
            "targets": _text(self.before.targets),
            "learning_rate": min(max(self.before.learning_rate, lowest), highest),
            "epochs": min(self.before.epochs, self.most_epochs),
        }
        return {name: values[name] for name in self.distributions}

    def design(self, drawn: Mapping[str, Any]) -> Design:
        """Return the design of a draw; what is not searched is as it was, learning rates have two digits."""
        if drawn == self.first:
            return self.before
        values = dict(drawn)
        if "targets" in values:
            values["targets"] = _names(values["targets"])
        return self.before.model_copy(update={**values, "learning_rate": float(f"{drawn['learning_rate']:.2g}")})

    def warms_up(self, design: Design) -> bool:
        """Tell whether a warm-up is to be trained for a design: not where it was chosen, or made, before."""
        return bool(self.warmups) and design.warmup != "none"


def design_of(settings: Settings) -> Design:
    """Return the design in force."""
    return Design(
        frozen_layers=settings.backbone.frozen_layers or 0,
        rank=getattr(settings.module, "rank", None),
        targets=getattr(settings.module, "targets", None),
        learning_rate=settings.training.learning_rate,
        epochs=settings.training.epochs,
        warmup=settings.backbone.warmup,
    )


def _shapes_differ(learner: Method) -> bool:
    """Tell whether a method lets tasks have modules of different shapes."""
    return learner.module_per_task


def _frozen_layers(backbone: Backbone, choices: DesignChoices) -> tuple[int, ...]:
    layers = backbone.cut.layers
    return tuple(layers - max(1, round(layers * share)) for share in choices.adapted) if layers else ()


def _matter(learner: Method, name: str, values: Iterable[Any]) -> bool:
    """Tell whether the workspace's kind of module is another with one of these values than with another."""
    config = learner.settings.module
    if name not in type(config).model_fields:
        return False
    kind: ModuleKind = MODULE_KINDS[config.kind]()
    others = [learner.settings.for_task({f"module.{name}": value}).module for value in values]
    documents = [kind.document(learner.backbone, other) for other in others]
    return any(document != documents[0] for document in documents)


def _targets(learner: Method, choices: DesignChoices) -> tuple[str | tuple[str, ...], ...]:
    """Return the sets of linear maps to choose from."""
    backbone = learner.backbone
    if choices.targets is not None:
        for targets in choices.targets:
            check_module(backbone, learner.settings.for_task({"module.targets": targets}).module)
        return choices.targets
    config: Any = backbone.cut.model.config
    usual = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(config.model_type, ())
    there = set(linear_maps(backbone))
    return ("all-linear", *(names for names in (tuple(usual), *_ATTENTION) if names and there.issuperset(names)))


_ATTENTION = (("q_proj", "v_proj"), ("query", "value"))
"""Names of the query and value maps in most architectures."""


def _with(value: Any, others: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((value, *others)))


def _text(targets: str | tuple[str, ...] | None) -> str:
    return targets if isinstance(targets, str) else _JOIN.join(targets or ())


def _names(text: str) -> str | tuple[str, ...]:
    return text if text == "all-linear" else tuple(text.split(_JOIN))
