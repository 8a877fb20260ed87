"""Settings: frozen, typed and nested by component; unknown keys are refused."""

from conpet.config.base import NonEmpty, Positive, StrictModel, Width
from conpet.config.components import (
    ComponentConfig,
    FusionConfig,
    HeadConfig,
    MethodConfig,
    ModuleConfig,
    ScheduleConfig,
    SelectorConfig,
)
from conpet.config.settings import (
    DEFAULT_BACKBONE,
    DesignChoices,
    GateConfig,
    LogConfig,
    PricesConfig,
    RefusalConfig,
    Settings,
    TaskSettings,
    TrainingConfig,
)

__all__ = [
    "DEFAULT_BACKBONE",
    "ComponentConfig",
    "DesignChoices",
    "FusionConfig",
    "GateConfig",
    "HeadConfig",
    "LogConfig",
    "MethodConfig",
    "ModuleConfig",
    "NonEmpty",
    "Positive",
    "PricesConfig",
    "RefusalConfig",
    "ScheduleConfig",
    "SelectorConfig",
    "Settings",
    "StrictModel",
    "TaskSettings",
    "TrainingConfig",
    "Width",
]
