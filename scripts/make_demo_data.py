"""Rebuild the packaged demo data from a copy of the published data set.

    python scripts/make_demo_data.py DIR

DIR holds `data_full.json` and `domains.json` of the CLINC150 repository at the commit named in
`src/conpet/demo/data/SOURCE.md`. The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "src" / "conpet" / "demo" / "data"
SEED = 0
TRAIN_PER_INTENT = 20
VALIDATION_PER_INTENT = 5
QUESTIONS_PER_INTENT = 2
OUT_OF_SCOPE_QUESTIONS = 60


class Row(NamedTuple):
    """An utterance of the published data; `id` is its position there, counted from 0."""

    id: str
    text: str
    intent: str


def read_split(published: dict[str, list[list[str]]], split: str) -> list[Row]:
    """Return the rows of a published split, with ids `{split}-{index}`."""
    return [Row(f"{split}-{index}", text, intent) for index, (text, intent) in enumerate(published[split])]


def normalise(text: str) -> str:
    """Return a normalised text; equal results mean the same text to a reader."""
    return " ".join(text.casefold().split())


def choose(rows: Iterable[Row], number: int, taken: set[str]) -> list[Row]:
    """Choose `number` rows per intent, without texts in `taken`; independent of the order of rows."""
    by_intent: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if normalise(row.text) not in taken:
            by_intent[row.intent][normalise(row.text)] = row
    chosen = []
    for intent in sorted(by_intent):
        candidates = sorted(by_intent[intent].values(), key=rank)
        chosen += candidates[:number]
    return chosen


def rank(row: Row) -> str:
    """Return the sort key of a row in a shuffle by `SEED`."""
    return hashlib.sha256(f"{SEED}\n{row.text}".encode()).hexdigest()


def write(path: Path, rows: Iterable[Row], domains: dict[str, list[str]]) -> None:
    """Write rows as compressed JSON lines, in the order of domains, intents and published data."""
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    order = {domain: at for at, domain in enumerate(domains)}
    ordered = sorted(rows, key=lambda row: (order[domain_of[row.intent]], row.intent, int(row.id.rpartition("-")[2])))
    write_lines(
        path,
        ({"task": domain_of[row.intent], "label": row.intent, "text": row.text, "id": row.id} for row in ordered),
    )


def write_lines(path: Path, documents: Iterable[Mapping[str, str | None]]) -> None:
    """Write compressed JSON lines; the same documents give the same bytes."""
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    with path.open("wb") as sink, gzip.GzipFile("", "wb", compresslevel=9, fileobj=sink, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())


def write_questions(path: Path, known: Iterable[Row], unknown: Iterable[Row]) -> None:
    """Write questions of known intents and some that belong to none, whose label is null, as one shuffled file."""
    labels = {row: row.intent for row in known} | dict.fromkeys(unknown)
    write_lines(path, ({"text": row.text, "label": labels[row], "id": row.id} for row in sorted(labels, key=rank)))


def main(source: Path) -> None:
    """Write the files of the demo."""
    published = json.loads((source / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((source / "domains.json").read_text(encoding="utf-8"))
    train, validation, test = (read_split(published, split) for split in ("train", "val", "test"))
    tested = {normalise(row.text) for row in test}
    trained = {normalise(row.text) for row in train}
    validated = {normalise(row.text) for row in validation}
    chosen = choose(train, TRAIN_PER_INTENT, tested | validated)
    known = choose(train, QUESTIONS_PER_INTENT, tested | validated | {normalise(row.text) for row in chosen})
    write(TARGET / "train.jsonl.gz", chosen, domains)
    write(TARGET / "validation.jsonl.gz", choose(validation, VALIDATION_PER_INTENT, tested | trained), domains)
    write(TARGET / "test.jsonl.gz", test, domains)
    unknown = choose(read_split(published, "oos_train"), OUT_OF_SCOPE_QUESTIONS, tested | trained | validated)
    write_questions(TARGET / "questions.jsonl.gz", known, unknown)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
