"""Few-NERD (Ding et al., ACL 2021): mentions of 66 entity types."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from conpet.data.benchmarks.paper import paper_labels
from conpet.data.benchmarks.reading import Reading, listed, text_lines
from conpet.data.example import Example, Span
from conpet.data.labelled import Grouping, LabelledData
from conpet.data.rows import RowError

FILES = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
FOLDER = "supervised"
_OUTSIDE = "O"


def read_fewnerd(name: str, folder: Path) -> LabelledData:
    """Read Few-NERD's supervised setting from `supervised/{train,dev,test}.txt`.

    Lines are `token<TAB>coarse-fine` or `token<TAB>O`, sentences are separated by blank lines. A run of one type is one
    mention, because the data does not mark beginnings. The groups are the coarse types.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)
    parse = partial(_mentions, known=paper_labels("fewnerd"))
    paths = {subset: folder / FOLDER / file for subset, file in FILES.items()}
    subsets = {subset: reading.examples(path, _sentences(path), parse) for subset, path in paths.items()}
    return reading.data(subsets, {"groups": _coarse(subsets["train"])})


def _sentences(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each sentence as a list of lines, with the number of its first line."""
    for blank, lines in groupby(text_lines(path), key=lambda numbered: not numbered[1].strip()):
        if not blank:
            numbered = list(lines)
            yield numbered[0][0], [line for _, line in numbered]


def _mentions(sentence: list[str], known: Collection[str]) -> Iterator[Example]:
    tokens, types = [], []
    for line in sentence:
        token, tab, entity_type = line.rstrip().partition("\t")
        if not tab or not token or "\t" in entity_type:
            raise RowError(f"in the sentence that begins here: expected 'token<TAB>type', found {line!r:.80}")
        if entity_type != _OUTSIDE and entity_type not in known:
            raise RowError(
                f"in the sentence that begins here: unknown type {entity_type!r:.80} (known: O, {listed(known, 3)})"
            )
        tokens.append(token)
        types.append(entity_type)
    end = 0
    for entity_type, run in groupby(types):
        start, end = end, end + len(list(run))
        if entity_type != _OUTSIDE:
            yield Example.of_mention(tokens, Span(start, end), entity_type)


def _coarse(examples: tuple[Example, ...]) -> Grouping:
    labels: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        labels[str(example.label).partition("-")[0]].add(str(example.label))
    return {coarse: tuple(sorted(fine)) for coarse, fine in sorted(labels.items())}
