"""A small stream that is learned in a second, with settings for it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from conpet.config import Settings
from conpet.config.base import flat, nested
from conpet.data import Example, Kind, Span, Task, TaskStream

_SUBSETS = ("train", "validation", "test")
_FILLERS = ("please", "can you", "i want", "tell me", "now", "today", "my", "the", "a", "with")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def toy_stream(
    tasks: int = 3,
    labels: int = 3,
    train: int = 12,
    validation: int = 4,
    test: int = 8,
    *,
    seed: int = 0,
    kind: Kind = Kind.TEXT,
) -> TaskStream:
    """Make a stream that `tiny-random` can learn: every task and every label has words from different letters.

    Args:
        tasks: Number of tasks.
        labels: Labels per task.
        train: Training examples per label.
        validation: Validation examples per label.
        test: Test examples per label.
        seed: Seed of the words.
        kind: Kind of the examples.
    """
    draw = random.Random(f"{seed}|{kind}")  # noqa: S311
    words: set[str] = set()
    stream = []
    for number in range(tasks):
        name = f"{kind}-{number}"
        topic = _words(draw, letters=4, count=3, taken=words)
        subsets: dict[str, list[Example]] = {subset: [] for subset in _SUBSETS}
        for label in (f"{name}-{index}" for index in range(labels)):
            keys = _words(draw, letters=3, count=4, taken=words)
            examples = _utterances(draw, topic, keys, train + validation + test)
            for subset, count in zip(_SUBSETS, (train, validation, test), strict=True):
                subsets[subset] += [_example(kind, examples.pop(), label) for _ in range(count)]
        stream.append(Task(name, tuple(subsets["train"]), tuple(subsets["validation"]), tuple(subsets["test"])))
    return TaskStream(tuple(stream))


def tiny_settings(**settings: Any) -> dict[str, Any]:
    """Return arguments of `ConPET.create` that learn a toy task in half a second.

    Args:
        settings: Settings to add or override: sections, or dotted keys.
    """
    quick = {
        "backbone": {"name": "tiny-random", "dtype": "float32", "device": "cpu"},
        "module": {"rank": 4},
        "training": {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2},
        "features": {"projection": 64},
        "fusion": {"calibration_examples": 60},
        "consolidation": {"epochs": 2},
    }
    chosen = Settings.parse(quick).changed(settings)
    if chosen.selector.name == "learned":
        learned = {"selector.rank": 4, "selector.steps": 60, "selector.learning_rate": 5e-3}
        explicit = flat(nested(settings))
        chosen = chosen.changed({key: value for key, value in learned.items() if key not in explicit})
    return chosen.model_dump(mode="json", exclude_unset=True)


def _words(draw: random.Random, *, letters: int, count: int, taken: set[str]) -> list[str]:
    alphabet = draw.sample(_LETTERS, letters)
    words: list[str] = []
    while len(words) < count:
        word = "".join(draw.choices(alphabet, k=5))
        if word not in taken:
            taken.add(word)
            words.append(word)
    return words


def _utterances(draw: random.Random, topic: Sequence[str], keys: Sequence[str], count: int) -> list[tuple[str, ...]]:
    utterances: dict[tuple[str, ...], None] = {}
    while len(utterances) < count:
        utterances[(*draw.sample(_FILLERS, 2), *draw.sample(topic, 2), *draw.sample(keys, 2))] = None
    return list(utterances)


def _example(kind: Kind, words: Sequence[str], label: str) -> Example:
    match kind:
        case Kind.TEXT:
            return Example.of_text(" ".join(words), label)
        case Kind.RELATION:
            return Example.of_relation(words, Span(0, 1), Span(2, 4), label)
        case Kind.TYPING:
            return Example.of_mention(words, Span(3, 5), label)
