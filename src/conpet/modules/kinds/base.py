"""The contract of PET kinds, and what those of Hugging Face PEFT have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from peft import PeftConfig, inject_adapter_in_model
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig, NonEmpty
from conpet.errors import ConfigError, CorruptionError
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.sublayers import linear_maps, linear_paths
from conpet.randomness import kept

Targets = Literal["all-linear"] | NonEmpty[str]
"""Leaf names of linear maps (`("q_proj", "k_proj")`), or all of them."""

ADAPTER = "default"
PREFIX = "base_model.model."
"""What PEFT calls an adapter in a model, and what it puts before the path of a map in its files."""


@dataclass(frozen=True, slots=True)
class InjectedModule:
    """A module put into a suffix.

    Attributes:
        parameters: What is trained, by its names on disk.
        dropouts: Dropout layers of its own, to be switched on in training.
    """

    parameters: Mapping[str, nn.Parameter]
    dropouts: Sequence[nn.Module] = ()


class ModuleKind(ABC):
    """One kind of PET module. It holds no state.

    Attributes:
        name: What users call it.
        peft_type: What its documents call it.
        in_peft: Whether plain PEFT loads what is stored of it.
        note: What users should know of it, or None.
    """

    name: ClassVar[str]
    peft_type: ClassVar[str]
    in_peft: ClassVar[bool] = False
    Config: ClassVar[type[ModuleConfig]] = ModuleConfig
    note: ClassVar[str | None] = None

    @abstractmethod
    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return what `adapter_config.json` says of a module: all that `inject` needs, JSON-ready.

        Raises:
            ConfigError: Such a module cannot sit on the backbone's suffix.
        """

    @abstractmethod
    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Put an untrained module into a suffix; nothing is drawn from the global generator."""

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate] | None:
        """Return what a module does to the linear maps of a suffix, by their paths, so that rows of a batch can differ.

        None means that it does something else: its rows are run by themselves, in a suffix of their own.

        Args:
            adapter: The stored module.
            bases: The frozen maps, by path.

        Raises:
            CorruptionError: A tensor is missing or surplus, or sits on a map that is not there.
        """
        return None

    def trains_batched(self, config: ModuleConfig) -> bool:
        """Tell whether modules of this kind and equal settings can be trained in one pass, each on its own rows."""
        return False

    @property
    def batched(self) -> bool:
        """Whether rows of one batch may use different modules of this kind."""
        return type(self).updates is not ModuleKind.updates


def inject_with_peft(config: PeftConfig, suffix: Suffix, device: torch.device) -> dict[str, nn.Parameter]:
    """Put a module into a suffix by PEFT; return its parameters by their names in PEFT's files.

    What PEFT draws from the global generator is to be overwritten.
    """
    with kept([device]):
        inject_adapter_in_model(config, suffix.shell, adapter_name=ADAPTER)
    return {_peft_name(name): parameter for name, parameter in suffix.shell.named_parameters() if f".{ADAPTER}" in name}


def _peft_name(name: str) -> str:
    name = PREFIX + name.replace(f".{ADAPTER}.", ".").removesuffix(f".{ADAPTER}")
    # DoRA's vector was a bare parameter in the first releases of PEFT, and is still called so in files.
    return name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a map `[out, in]` uniformly between -1 and 1 over the square root of its inputs, as PEFT does."""
    bound = 1 / shape[1] ** 0.5
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)


def checked_targets(backbone: Backbone, named: Targets) -> list[str]:
    """Return the leaf names of the linear maps that are named, sorted.

    Raises:
        ConfigError: A target is no linear map of the suffix, or the suffix has none.
    """
    have = linear_maps(backbone)
    if not have:
        raise ConfigError(
            f"{backbone.name} has no linear maps (torch.nn.Linear) above layer {backbone.frozen_layers} for "
            "a module to sit on: use fewer frozen_layers or another backbone"
        )
    targets = have if named == "all-linear" else named
    unknown = sorted(set(targets) - set(have))
    if unknown:
        raise ConfigError(
            f"module.targets: no linear map {', '.join(unknown)} in {backbone.name}; have: {', '.join(have)}"
        )
    return sorted(targets)


def target_paths(backbone: Backbone, named: Targets) -> list[str]:
    """Return the paths of the linear maps that are named (see `checked_targets`)."""
    return paths_named(backbone, checked_targets(backbone, named))


def paths_named(backbone: Backbone, leaves: Sequence[str]) -> list[str]:
    """Return the paths of the suffix's linear maps with some leaf names, in the order of the module tree."""
    return [path for path in linear_paths(backbone) if path.rpartition(".")[2] in leaves]


def grouped(
    tensors: Mapping[str, Tensor], ends: Sequence[str], bases: Mapping[str, nn.Linear], prefix: str = ""
) -> dict[str, dict[str, Tensor]]:
    """Sort a module's tensors, named `<prefix><path><end>`, by path and end; every path must have every end.

    Raises:
        CorruptionError: A tensor is missing or surplus, or sits on no linear map above the cut.
    """
    stems = dict.fromkeys(name.removesuffix(end) for name in tensors for end in ends if name.endswith(end))
    wrong = sorted({f"{stem}{end}" for stem in stems for end in ends} ^ tensors.keys())
    if wrong:
        raise CorruptionError(f"a stored module has missing or surplus tensors: {', '.join(wrong)}")
    paths = {stem.removeprefix(prefix): stem for stem in stems}
    unknown = sorted(paths.keys() - bases.keys())
    if unknown:
        raise CorruptionError(f"a stored module changes {unknown[0]}, which is no linear map above the cut")
    return {path: {end: tensors[stem + end] for end in ends} for path, stem in paths.items()}


def config_document(config: PeftConfig) -> dict[str, Any]:
    """Return PEFT's configuration as it writes it, sets as sorted lists."""
    document = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
