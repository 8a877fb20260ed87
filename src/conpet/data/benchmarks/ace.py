"""ACE 2005 (Walker et al.; LDC2006T06): relations between two mentions of entities."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from conpet.data.benchmarks.ace_ldc import ANNOTATION, documents, read_document
from conpet.data.benchmarks.paper import paper_labels
from conpet.data.benchmarks.reading import Reading, field, json_line, listed, shown, text_lines, words
from conpet.data.example import Example, Span
from conpet.data.labelled import LabelledData
from conpet.data.rows import RowError
from conpet.errors import Problem

HELD_OUT_SHARE = 0.1
_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_SUFFIXES = (".json", ".jsonl")


def read_ace(name: str, folder: Path) -> LabelledData:
    """Read ACE 2005, either LDC's `.sgm` and `.apf.xml` files or DyGIE++'s JSON lines.

    The label is the subtype of the relation. There is no official split: whole documents are divided 80/10/10 by a
    hash of their name, unless there are DyGIE++ files named train, dev and test.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)
    subtype = partial(subtype_of, known=paper_labels("ace2005"))
    by_document: dict[str, list[Example]] = defaultdict(list)
    if annotations := documents(folder):
        for path in annotations:
            by_document[path.name.removesuffix(ANNOTATION)] += read_document(reading, path, subtype)
        if len(by_document) < len(annotations):
            reading.problems.append(
                Problem(str(folder), None, "contains the same documents in several folders; keep only timex2norm")
            )
        return reading.data(_divided(reading, by_document))
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES}
    parse = partial(_sentences, subtype=subtype)
    if set(_SPLITS.values()) <= set(files):
        paths = {subset: files[stem] for subset, stem in _SPLITS.items()}
        return reading.data({subset: reading.examples(path, _rows(path), parse) for subset, path in paths.items()})
    for path in files.values():
        for number, line in _rows(path):
            by_document[_name(line)] += reading.examples(path, [(number, line)], parse)
    return reading.data(_divided(reading, by_document))


def subtype_of(label: str, known: frozenset[str]) -> str:
    """Return the subtype of a relation; `TYPE.Subtype` and `TYPE:Subtype` are accepted too.

    Raises:
        RowError: It is not one of the 18 subtypes.
    """
    subtype = label.replace(":", ".").rpartition(".")[2]
    if subtype not in known:
        raise RowError(f"{label!r} is not a subtype of a relation; known: {listed(known)}")
    return subtype


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in text_lines(path) if line.strip())


def _name(line: str) -> str:
    """Return the name of a document, or the line itself if it has no name or cannot be read."""
    try:
        return str(json_line(line).get("doc_key", line))
    except RowError:
        return line


def _divided(reading: Reading, by_document: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    ranked = sorted(by_document, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    held = max(1, round(HELD_OUT_SHARE * len(ranked))) if len(ranked) > 2 else 0
    parts = {"test": ranked[:held], "validation": ranked[held : 2 * held], "train": ranked[2 * held :]}
    sizes = ", ".join(f"{len(names)} for {subset}" for subset, names in reversed(parts.items()))
    reading.notes.append(f"no official split: documents were divided by a hash of their name, {sizes}")
    return {
        subset: [example for name in sorted(names) for example in by_document[name]] for subset, names in parts.items()
    }


def _sentences(line: str, subtype: Callable[[str], str]) -> Iterator[Example]:
    """Yield the relations of a DyGIE++ document, whose positions count tokens of the whole document."""
    document = json_line(line)
    sentences = field(document, "sentences", list, "a list of sentences")
    relations = field(document, "relations", list, "a list of relations for each sentence")
    if len(sentences) != len(relations):
        raise RowError(f"{len(sentences)} sentences, but lists of relations for {len(relations)}")
    begin = 0
    for number, sentence_relations in enumerate(relations):
        tokens = words({f"sentence {number}": sentences[number]}, f"sentence {number}")
        for relation in sentence_relations:
            match relation:
                case [int(a), int(b), int(c), int(d), str(label), *_]:
                    head, tail = Span(a - begin, b + 1 - begin), Span(c - begin, d + 1 - begin)
                case _:
                    raise RowError(f"expected [head start, head end, tail start, tail end, label], found {relation!r}")
            if min(head.start, tail.start) < 0 or max(head.end, tail.end) > len(tokens):
                raise RowError(f"relation {relation!r} lies outside sentence {number} ({shown(sentences[number])})")
            yield Example.of_relation(tokens, head, tail, subtype(label))
        begin += len(tokens)
