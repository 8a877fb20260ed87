"""The contract of every module kind, and functions shared by the kinds of Hugging Face PEFT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig
from conpet.errors import ConfigError, CorruptionError
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.kinds.settings import Targets
from conpet.modules.sublayers import linear_maps, linear_paths
from conpet.randomness import kept

if TYPE_CHECKING:
    from peft import PeftConfig

# PEFT is imported where modules are made: it takes tens of MB of memory, and predictions do not need it.

ADAPTER = "default"
PREFIX = "base_model.model."
"""PEFT's name for an adapter in a model, and its prefix for the paths of maps in files."""


@dataclass(frozen=True, slots=True)
class InjectedModule:
    """A module inserted into a suffix.

    Attributes:
        parameters: Trained parameters, by their names on disk.
        dropouts: The module's dropout layers, active only in training.
    """

    parameters: Mapping[str, nn.Parameter]
    dropouts: Sequence[nn.Module] = ()


class ModuleKind(ABC):
    """A kind of PET module. Stateless.

    Attributes:
        name: Its name in settings.
        peft_type: Its name in stored documents.
        in_peft: Whether Hugging Face PEFT can load stored modules of this kind.
        note: Information for users, or None.
    """

    name: ClassVar[str]
    peft_type: ClassVar[str]
    in_peft: ClassVar[bool] = False
    Config: ClassVar[type[ModuleConfig]] = ModuleConfig
    note: ClassVar[str | None] = None

    @abstractmethod
    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return the content of `adapter_config.json` for a module: everything `inject` needs, JSON-ready.

        Raises:
            ConfigError: Such a module does not fit the backbone's suffix.
        """

    @abstractmethod
    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Insert an untrained module into a suffix; must not use the global random generator."""

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate] | None:
        """Return a module's updates of the linear maps of a suffix, by path.

        With such updates, rows of one batch can use different modules. None if the module cannot be expressed so: its
        rows then run in a separate pass and suffix.

        Args:
            adapter: The stored module.
            bases: The frozen maps, by path.

        Raises:
            CorruptionError: A tensor is missing or unexpected, or belongs to a map that does not exist.
        """
        return None

    def trains_batched(self, config: ModuleConfig) -> bool:
        """Tell whether several modules with these settings can be trained in one pass, each on different rows."""
        return False

    @property
    def batched(self) -> bool:
        """Whether rows of one batch may use different modules of this kind."""
        return type(self).updates is not ModuleKind.updates


def inject_with_peft(config: PeftConfig, suffix: Suffix, device: torch.device) -> dict[str, nn.Parameter]:
    """Insert a module into a suffix with PEFT; return its parameters by their names in PEFT's files.

    PEFT initialises them from the global random generator, so the caller must overwrite the random ones.
    """
    from peft import inject_adapter_in_model

    with kept([device]):
        inject_adapter_in_model(config, suffix.shell, adapter_name=ADAPTER)
    return {_peft_name(name): parameter for name, parameter in suffix.shell.named_parameters() if f".{ADAPTER}" in name}


def _peft_name(name: str) -> str:
    name = PREFIX + name.replace(f".{ADAPTER}.", ".").removesuffix(f".{ADAPTER}")
    # In files, DoRA's vector still has the name it had as a bare parameter in early releases of PEFT.
    return name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a matrix `[out, in]` uniformly from +-1 / sqrt(in), as PEFT does."""
    bound = 1 / shape[1] ** 0.5
    return torch.empty(*shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def checked_targets(backbone: Backbone, chosen: Targets) -> list[str]:
    """Return the leaf names of the chosen linear maps, sorted.

    Raises:
        ConfigError: A target is not a linear map of the suffix, or the suffix has no linear maps.
    """
    available = linear_maps(backbone)
    if not available:
        raise ConfigError(
            f"{backbone.name} has no linear maps (torch.nn.Linear) above layer {backbone.frozen_layers} to adapt: "
            "lower backbone.frozen_layers or use another backbone"
        )
    targets = available if chosen == "all-linear" else chosen
    unknown = sorted(set(targets) - set(available))
    if unknown:
        raise ConfigError(
            f"module.targets: {backbone.name} has no linear map {', '.join(unknown)}; have: {', '.join(available)}"
        )
    return sorted(targets)


def target_paths(backbone: Backbone, chosen: Targets) -> list[str]:
    """Return the paths of the chosen linear maps (see `checked_targets`)."""
    return paths_named(backbone, checked_targets(backbone, chosen))


def paths_named(backbone: Backbone, leaves: Sequence[str]) -> list[str]:
    """Return the paths of the suffix's linear maps with these leaf names, in the order of the module tree."""
    return [path for path in linear_paths(backbone) if path.rpartition(".")[2] in leaves]


def grouped_tensors(
    tensors: Mapping[str, Tensor], ends: Sequence[str], bases: Mapping[str, nn.Linear], prefix: str = ""
) -> dict[str, dict[str, Tensor]]:
    """Group a module's tensors, named `<prefix><path><end>`, by path and end; every path must have every end.

    Raises:
        CorruptionError: A tensor is missing or unexpected, or belongs to no linear map above the cut.
    """
    stems = dict.fromkeys(name.removesuffix(end) for name in tensors for end in ends if name.endswith(end))
    wrong = sorted({f"{stem}{end}" for stem in stems for end in ends} ^ tensors.keys())
    if wrong:
        raise CorruptionError(
            f"a stored module has missing or unexpected tensors: {', '.join(wrong)}; restore the workspace from a "
            "backup"
        )
    paths = {stem.removeprefix(prefix): stem for stem in stems}
    unknown = sorted(paths.keys() - bases.keys())
    if unknown:
        raise CorruptionError(
            f"a stored module adapts {unknown[0]}, which is not a linear map above the cut; restore the "
            "workspace from a backup"
        )
    return {path: {end: tensors[stem + end] for end in ends} for path, stem in paths.items()}


def config_document(config: PeftConfig) -> dict[str, Any]:
    """Return PEFT's configuration as stored, with sets as sorted lists."""
    document = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
