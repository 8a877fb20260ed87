"""Frozen features of the data sets of `benchmarks/refusal.py`: read, drawn, encoded once and kept."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conpet import Example
from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.data.benchmarks import read_data

FOLDERS = [Path(__file__).parent / "data", Path(__file__).parents[2] / "shared" / "data"]
TRAIN, VALIDATION, TEST, MISSPELT = 20, 20, 30, 10
"""Most examples per label of each part."""
_TYPOS = 0.5
"""Share of the words of four letters or more in which two neighbouring letters are exchanged."""


class Part(NamedTuple):
    """Drawn examples with their features `[n, F]`."""

    features: Tensor
    labels: list[str]
    examples: list[Example]

    def of(self, labels: Iterable[str]) -> Part:
        """Return the examples with these labels."""
        wanted = set(labels)
        return self.at([row for row, label in enumerate(self.labels) if label in wanted])

    def at(self, rows: Sequence[int]) -> Part:
        """Return the examples at these rows."""
        return Part(self.features[list(rows)], [self.labels[row] for row in rows], [self.examples[row] for row in rows])

    def renamed(self, prefix: str) -> Part:
        """Return the part with a prefix before each label."""
        return self._replace(labels=[f"{prefix} {label}" for label in self.labels])

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Part:
        """Return all parts together."""
        labels = [label for part in parts for label in part.labels]
        examples = [example for part in parts for example in part.examples]
        return cls(torch.cat([part.features for part in parts]), labels, examples)


def parts(data: str, backbone: str, kept: Path, *, train: int = TRAIN) -> dict[str, Part]:
    """Return the parts of a data set: train, validation, test, misspelt (test inputs) and, if it has any, unknown.

    Args:
        data: Name of the data set.
        backbone: The backbone.
        kept: Folder in which features are kept between runs.
        train: Most training examples per label.
    """
    read = read_data(data, FOLDERS)
    drawn = {
        "train": _by_label(read.train, train),
        "validation": _by_label(read.validation, VALIDATION),
        "test": _by_label(read.test, TEST),
        "misspelt": [_misspelt(one) for one in _by_label(read.test, MISSPELT)],
        "unknown": list(read.out_of_scope),
    }
    model: Backbone | None = None
    found = {}
    for name, examples in drawn.items():
        if not examples or (name == "misspelt" and data != "clinc150"):
            continue
        drawn_as = f"{name}{train}" if name == "train" and train != TRAIN else name
        path = kept / f"{data}-{drawn_as}-{backbone}.safetensors"
        if not path.exists():
            model = model or Backbone(load_backbone(backbone, dtype="float32", device="cpu"))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"features": model.states(examples, keep=False).features}, path)
        found[name] = Part(load_file(path)["features"], [str(one.label) for one in examples], examples)
    return found


def _by_label(examples: Sequence[Example], most: int) -> list[Example]:
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[str(example.label)].append(example)
    generator = random.Random(7)
    drawn = []
    for _, of_label in sorted(by_label.items()):
        generator.shuffle(of_label)
        drawn += of_label[:most]
    return drawn


def _misspelt(example: Example) -> Example:
    generator = random.Random(example.text)
    words = example.text.split()
    for number, word in enumerate(words):
        if len(word) >= 4 and generator.random() < _TYPOS:
            at = generator.randrange(1, len(word) - 1)
            words[number] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return Example.of_text(" ".join(words), label=example.label)
