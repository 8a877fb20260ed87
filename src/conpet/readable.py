"""One way to read a learned object, whether it lies in the store or is about to be put there."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from conpet.artifact import Artifact

if TYPE_CHECKING:
    import torch


class Readable(Protocol):
    """What learners read from; `conpet.artifact.ArtifactReader` is one."""

    @property
    def folder(self) -> Hashable:
        """What identifies the object: equal values, equal content."""

    def has(self, stem: str) -> bool:
        """Tell whether it has tensors, a document or a table of this stem."""

    def tensors(self, stem: str) -> Mapping[str, torch.Tensor]:
        """Return the tensors of `stem`."""

    def document(self, stem: str) -> Any:
        """Return the document of `stem`; do not change it."""

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of the table `stem`, or over those numbered in `wanted`, from 0."""


class Held:
    """An artifact still in memory, read like one in the store.

    Args:
        artifact: The artifact; its tables must be readable more than once.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.folder: Hashable = uuid4()

    def has(self, stem: str) -> bool:
        """Tell whether it has tensors, a document or a table of this stem."""
        artifact = self._artifact
        return any(stem in part for part in (artifact.tensors, artifact.documents, artifact.tables))

    def tensors(self, stem: str) -> Mapping[str, torch.Tensor]:
        """Return the tensors of `stem`."""
        return self._artifact.tensors[stem]

    def document(self, stem: str) -> Any:
        """Return the document of `stem`."""
        return self._artifact.documents[stem]

    def rows(self, stem: str, wanted: Container[int] | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of the table `stem`, or over those numbered in `wanted`, from 0."""
        rows = enumerate(self._artifact.tables[stem])
        return (dict(row) for number, row in rows if wanted is None or number in wanted)
