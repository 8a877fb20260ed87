"""FewRel (Han et al., EMNLP 2018): relations between two marked entities."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conpet.data.benchmarks.reading import Reading, field, json_file, shown, words
from conpet.data.example import Example, Span
from conpet.data.held_out import MIN_INPUTS
from conpet.data.labelled import LabelledData
from conpet.data.rows import RowError
from conpet.errors import Problem

FILES = ("train_wiki.json", "val_wiki.json")
HELD_OUT_SHARE = 0.1
_EXPECTED = 'an object {"P931": [{"tokens": [...], "h": [name, id, [[positions]]], "t": [...]}, ...], ...}'
_RELATION = re.compile(r"P\d+")


def read_fewrel(name: str, folder: Path) -> LabelledData:
    """Read FewRel's 80 public relations from `train_wiki.json` and `val_wiki.json`.

    The official test set has no labels, so both files are joined and divided (see `divide`). If the sentence names an
    entity several times, the first place is used.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)
    examples: list[Example] = []
    for file in FILES:
        for relation, instances in json_file(folder / file, dict, _EXPECTED).items():
            examples += _of_relation(reading, folder / file, relation, instances)
    reading.notes.append(
        "the official test set has no labels: the instances of every relation in train_wiki.json and val_wiki.json are "
        "divided 80/10/10 into training, validation and test by a hash of the sentence; no sentence is in two of them"
    )
    return reading.data(divide(examples))


def divide(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Divide examples 80/10/10 label by label, so that no sentence is in two subsets.

    The sentences of a label go to test, validation and training in the order of their hash. A sentence with several
    labels is placed by the alphabetically first label, and counts there for the others.
    """
    by_label: dict[str, dict[tuple[str, ...], list[Example]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        by_label[str(example.label)][example.tokens].append(example)
    place: dict[tuple[str, ...], str] = {}
    for _, sentences in sorted(by_label.items()):
        total = sum(map(len, sentences.values()))
        wanted = max(1, round(HELD_OUT_SHARE * total)) if len(sentences) >= MIN_INPUTS else 0
        free = sorted((sentence for sentence in sentences if sentence not in place), key=_rank, reverse=True)
        for subset in ("test", "validation"):
            held = sum(len(same) for sentence, same in sentences.items() if place.get(sentence) == subset)
            while held < wanted and free:
                place[free[-1]] = subset
                held += len(sentences[free.pop()])
        place.update(dict.fromkeys(free, "train"))
    subsets: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for sentences in by_label.values():
        for sentence, same in sentences.items():
            subsets[place[sentence]] += same
    return subsets


def _rank(sentence: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(sentence).encode()).hexdigest()


def _of_relation(reading: Reading, path: Path, relation: str, instances: Any) -> Sequence[Example]:
    if not _RELATION.fullmatch(relation) or not isinstance(instances, list):
        found = f"{relation!r}: {shown(instances)}"
        reading.problems.append(Problem(str(path), None, f"expected Wikidata relations such as P931, found {found}"))
        return ()

    def parse(numbered: tuple[int, Any]) -> Iterator[Example]:
        number, instance = numbered
        try:
            head, tail = _span(instance, "h"), _span(instance, "t")
            yield Example.of_relation(words(instance, "tokens"), head, tail, relation, f"{relation}-{number}")
        except RowError as error:
            raise RowError(f"{relation}, instance {number}: {error}") from None

    return reading.examples(path, ((None, numbered) for numbered in enumerate(instances, start=1)), parse)


def _span(instance: Any, name: str) -> Span:
    value = field(instance, name, list, "[name, id, [[positions]]]")
    match value:
        case [_, _, [[*positions], *_]] if positions and all(isinstance(position, int) for position in positions):
            return Span(min(positions), max(positions) + 1)
    raise RowError(f"{name} must be [name, id, [[positions]]], not {value!r:.80}")
