"""The kinds of PET modules, by name: one file and one line here each (`docs/reference/module-kinds.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conpet.errors import ConfigError, CorruptionError
from conpet.registry import Registry

if TYPE_CHECKING:
    from conpet.backbone.backbone import Backbone
    from conpet.config import TaskSettings
    from conpet.modules.kinds.base import ModuleKind

MODULE_KINDS = Registry(
    "PET kind",
    {
        "lora": "conpet.modules.kinds.lora:Lora",
        "ia3": "conpet.modules.kinds.ia3:Ia3",
        "houlsby": "conpet.modules.kinds.bottleneck:Houlsby",
        "pfeiffer": "conpet.modules.kinds.bottleneck:Pfeiffer",
        "prefix": "conpet.modules.kinds.prefix:Prefix",
    },
)

_OPTIONAL = ("dropout", "rslora", "dora")
"""Settings that are off unless asked for, so that asking a kind for one it does not have is a mistake."""


def kind_of_document(document: Mapping[str, Any]) -> ModuleKind:
    """Return the kind of a stored module.

    Raises:
        CorruptionError: There is no such kind.
    """
    kinds: list[type[ModuleKind]] = [MODULE_KINDS[name] for name in MODULE_KINDS]
    found = next((kind for kind in kinds if kind.peft_type == document.get("peft_type")), None)
    if found is None:
        raise CorruptionError(
            f"a stored module is of the kind {document.get('peft_type')!r}; this version of conpet knows "
            f"{', '.join(kind.peft_type for kind in kinds)}"
        )
    return found()


def check_switches(settings: TaskSettings) -> None:
    """Raise unless the kind is known and has every optional setting that is on.

    Raises:
        UnknownNameError: There is no such kind.
        ConfigError: A setting that the kind does not have.
    """
    kind: type[ModuleKind] = MODULE_KINDS[settings.pet]
    strange = [name for name in _OPTIONAL if getattr(settings, name) and name not in kind.optional]
    if strange:
        raise ConfigError(f"pet={settings.pet} knows no {', '.join(strange)}: leave it off, or use pet=lora")


def check_settings(backbone: Backbone, settings: TaskSettings) -> None:
    """Raise `ConfigError` unless a module of these settings can sit on the backbone's suffix."""
    check_switches(settings)
    kind: ModuleKind = MODULE_KINDS[settings.pet]()
    kind.document(backbone, settings)
