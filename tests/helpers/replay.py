"""Memories of toy texts, read by a backbone that only counts letters: what is drawn does not depend on the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from conpet.artifact import Artifact, InMemoryObject, ObjectReader
from conpet.backbone.states import Encoded, States
from conpet.data import Example, Kind
from conpet.replay.memory import StoredExamples, Subset, text_memory

# Upper 0.1% points of the chi-square distribution, by degrees of freedom.
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 9: 27.88, 19: 43.82, 39: 72.05}


def chi_square(counts: Sequence[int], shares: Sequence[float] | None = None) -> float:
    """Return Pearson's statistic against expected shares (uniform where none are given)."""
    expected = [sum(counts) * share for share in shares or [1 / len(counts)] * len(counts)]
    return sum((count - one) ** 2 / one for count, one in zip(counts, expected, strict=True))


def examples_of(name: str, size: int, labels: int = 1) -> list[Example]:
    return [Example.of_text(f"{name} {number}", f"{name}-{number % labels}") for number in range(size)]


def artifact(name: str, size: int) -> Artifact:
    some = examples_of(name, size)
    return text_memory({Subset.TRAIN: some, Subset.VALIDATION: some[: size // 2], Subset.TEST: []})


def past_examples(name: str, size: int, reader: ObjectReader | None = None) -> StoredExamples:
    """Return a memory of `size` training examples, half as many to validate, none to test."""
    return StoredExamples(name, None, Kind.TEXT, reader or InMemoryObject(artifact(name, size)))


class Letters:
    """Stands for a backbone: an example's states are the codes of its letters."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def states(self, examples: Sequence[Example], template: str | None = None, **_: Any) -> States:
        self.read += [example.text for example in examples]
        encoded = tuple(Encoded(tuple(example.text.encode()), 0) for example in examples)
        hidden = tuple(torch.tensor(one.ids).float().unsqueeze(1) for one in encoded)
        return States(encoded, hidden, torch.tensor([[float(len(one.ids))] for one in encoded]))


def texts(states: States) -> list[str]:
    """Return the texts whose letters the states of `Letters` are."""
    return [bytes(one.ids).decode() for one in states.encoded]
