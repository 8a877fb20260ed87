"""An example: plain text, a relation between two marked spans, or an entity mention to classify."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Id = str | int | float | bool | list[Any] | dict[str, Any]
"""An identifier chosen by the caller: any JSON value."""


class Kind(StrEnum):
    """The kind of an example; it determines the template and the fields used."""

    TEXT = "text"
    RELATION = "relation"
    TYPING = "typing"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Tokens `start` to `end` (exclusive) of an example's `tokens`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Example:
    """An input with its label, if known. Build it with `of_text`, `of_relation` or `of_mention`.

    Attributes:
        kind: The kind of the example.
        text: The text (`Kind.TEXT`), otherwise empty.
        tokens: The words (`Kind.RELATION`, `Kind.TYPING`), otherwise empty.
        head: Span of the relation's head entity.
        tail: Span of the relation's tail entity.
        mention: Span of the mention to classify.
        label: The label, or None if unknown.
        id: An identifier chosen by the caller, any JSON value, or None.
    """

    kind: Kind
    text: str = ""
    tokens: tuple[str, ...] = ()
    head: Span | None = None
    tail: Span | None = None
    mention: Span | None = None
    label: str | None = None
    id: Id | None = field(default=None, hash=False)

    @classmethod
    def of_text(cls, text: str, label: str | None = None, id: Id | None = None) -> Example:  # noqa: A002
        """Build a plain-text example."""
        return cls(Kind.TEXT, text=text, label=label, id=id)

    @classmethod
    def of_relation(
        cls,
        tokens: Sequence[str],
        head: Span,
        tail: Span,
        label: str | None = None,
        id: Id | None = None,  # noqa: A002
    ) -> Example:
        """Build a relation example."""
        return cls(Kind.RELATION, tokens=tuple(tokens), head=head, tail=tail, label=label, id=id)

    @classmethod
    def of_mention(
        cls,
        tokens: Sequence[str],
        mention: Span,
        label: str | None = None,
        id: Id | None = None,  # noqa: A002
    ) -> Example:
        """Build an entity-typing example."""
        return cls(Kind.TYPING, tokens=tuple(tokens), mention=mention, label=label, id=id)

    @property
    def input_key(self) -> tuple[Any, ...]:
        """Everything that is encoded, without label and id; equal keys mean the same input."""
        return (self.kind, self.text, self.tokens, self.head, self.tail, self.mention)

    @property
    def content(self) -> str:
        """The text; tokens are joined by blanks."""
        return self.text or " ".join(self.tokens)

    def labelled(self, label: str | None) -> Example:
        """Return the same input with another label."""
        return self if label == self.label else replace(self, label=label)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with the field names the readers accept, without empty fields."""
        spans = {"head": self.head, "tail": self.tail, "mention": self.mention}
        fields = {
            "text": self.text,
            "tokens": self.tokens,
            **{name: span and {"start": span.start, "end": span.end} for name, span in spans.items()},
            "label": self.label,
        }
        identifier = {} if self.id is None else {"id": self.id}
        return {"kind": str(self.kind)} | {key: value for key, value in fields.items() if value} | identifier

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Example:
        """Rebuild an example from `to_json`. Does not check the row; use the readers for user files."""
        spans = {name: Span(**row[name]) for name in ("head", "tail", "mention") if row.get(name)}
        return cls(
            Kind(row["kind"]),
            text=row.get("text", ""),
            tokens=tuple(row.get("tokens", ())),
            label=row.get("label"),
            id=row.get("id"),
            **spans,
        )


def digest_examples(examples: tuple[Example, ...]) -> str:
    """Return a hex digest of the inputs and labels, in order; ids are ignored."""
    hasher = hashlib.sha256()
    for example in examples:
        row = example.to_json()
        row.pop("id", None)
        hasher.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        hasher.update(b"\n")
    return hasher.hexdigest()
