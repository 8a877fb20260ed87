"""The task streams of the benchmarks: data, how much of it, and in which order."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conpet import Example, Span, Task, TaskStream
from conpet.demo.stream import demo_stream

DATA = Path(__file__).parent / "data"
SPLITS = ("train", "validation", "test")


def stream(data: str, per_label: dict[str, int], order: int = 0) -> TaskStream:
    """Return a stream of ten tasks.

    Args:
        data: "clinc150" (15 intents a task: its domains) or "fewrel80" (8 relations a task: the paper's).
        per_label: Split to the number of examples a label, at most; which ones is always the same.
        order: 0 is the order of the source, others are shuffled by that seed.
    """
    tasks = [Task(name, **_parts(splits, per_label)) for name, splits in _examples(data)]
    if order:
        random.Random(order).shuffle(tasks)
    return TaskStream(tuple(tasks))


def _examples(data: str) -> Iterator[tuple[str, dict[str, list[Example]]]]:
    if data == "clinc150":
        for task in demo_stream():
            yield task.name, {split: list(getattr(task, split)) for split in SPLITS}
        return
    rows: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for split in SPLITS:
        with gzip.open(DATA / data / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                rows[row["task"]][split].append(_relation(row))
    yield from sorted(rows.items())


def _relation(row: dict[str, Any]) -> Example:
    return Example.of_relation(row["tokens"], Span(*row["head"]), Span(*row["tail"]), row["label"], row["id"])


def _parts(splits: dict[str, list[Example]], per_label: dict[str, int]) -> dict[str, tuple[Example, ...]]:
    return {split: tuple(_limited(splits[split], per_label[split])) for split in SPLITS}


def _limited(examples: list[Example], count: int) -> Iterator[Example]:
    taken: dict[str | None, int] = defaultdict(int)
    for example in random.Random(0).sample(examples, len(examples)):
        taken[example.label] += 1
        if taken[example.label] <= count:
            yield example
