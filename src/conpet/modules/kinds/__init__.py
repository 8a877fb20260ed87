"""The kinds of PET modules: each has one file, and one line here (see `docs/reference/module-kinds.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conpet.errors import CorruptionError
from conpet.registry import Registry

if TYPE_CHECKING:
    from conpet.backbone.backbone import Backbone
    from conpet.config import ModuleConfig
    from conpet.modules.kinds.base import ModuleKind

MODULE_KINDS = Registry(
    "module kind",
    "conpet.modules",
    {
        "lora": "conpet.modules.kinds.lora:Lora",
        "ia3": "conpet.modules.kinds.ia3:Ia3",
        "houlsby": "conpet.modules.kinds.bottleneck:Houlsby",
        "pfeiffer": "conpet.modules.kinds.bottleneck:Pfeiffer",
        "prefix": "conpet.modules.kinds.prefix:Prefix",
    },
    base="conpet.modules.kinds.base:ModuleKind",
    configs={
        "lora": "conpet.modules.kinds.settings:LoraConfig",
        "ia3": "conpet.modules.kinds.settings:Ia3Config",
        "houlsby": "conpet.modules.kinds.settings:BottleneckConfig",
        "pfeiffer": "conpet.modules.kinds.settings:BottleneckConfig",
        "prefix": "conpet.modules.kinds.settings:PrefixConfig",
    },
)


def kind_of_document(document: Mapping[str, Any]) -> ModuleKind:
    """Return the kind of a stored module.

    Raises:
        CorruptionError: The kind is unknown.
    """
    kinds: list[type[ModuleKind]] = [kind for _, kind in MODULE_KINDS.loadable()]
    match = next((kind for kind in kinds if kind.peft_type == document.get("peft_type")), None)
    if match is None:
        raise CorruptionError(
            f"a stored module has the unknown kind {document.get('peft_type')!r}; this version of conpet supports "
            f"{', '.join(kind.peft_type for kind in kinds)}: upgrade conpet, or install the package that registers it"
        )
    return match()


def check_module(backbone: Backbone, config: ModuleConfig) -> None:
    """Raise `ConfigError` unless a module with these settings fits the backbone's suffix."""
    kind: ModuleKind = MODULE_KINDS[config.kind]()
    kind.document(backbone, config)
