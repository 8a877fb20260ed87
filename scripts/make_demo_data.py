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
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[1] / "src" / "conpet" / "demo" / "data"
SEED = 0
TRAIN_PER_INTENT = 20
VALIDATION_PER_INTENT = 5


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
    lines = [
        json.dumps(
            {"task": domain_of[row.intent], "label": row.intent, "text": row.text, "id": row.id}, ensure_ascii=False
        )
        for row in sorted(
            rows, key=lambda row: (order[domain_of[row.intent]], row.intent, int(row.id.rpartition("-")[2]))
        )
    ]
    with path.open("wb") as sink, gzip.GzipFile("", "wb", compresslevel=9, fileobj=sink, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())


def main(source: Path) -> None:
    """Write the three files of the demo."""
    published = json.loads((source / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((source / "domains.json").read_text(encoding="utf-8"))
    train, validation, test = (read_split(published, split) for split in ("train", "val", "test"))
    tested = {normalise(row.text) for row in test}
    trained = {normalise(row.text) for row in train}
    validated = {normalise(row.text) for row in validation}
    write(TARGET / "train.jsonl.gz", choose(train, TRAIN_PER_INTENT, tested | validated), domains)
    write(TARGET / "validation.jsonl.gz", choose(validation, VALIDATION_PER_INTENT, tested | trained), domains)
    write(TARGET / "test.jsonl.gz", test, domains)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
