"""ACE 2005 in LDC's format: a tagged text, and annotations with character offsets."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from conpet.data.benchmarks.reading import Reading
from conpet.data.example import Example, Span
from conpet.data.rows import RowError
from conpet.errors import Problem, reason_of

ANNOTATION = ".apf.xml"
WITHOUT_SUBTYPE = "METONYMY"
_PREFERRED = ("timex2norm", "English")
_TAG = re.compile(r"<[^>]*>")
_WORD = re.compile(r"[A-Za-z](?:\.[A-Za-z])+\.?|\w+(?:[-'’]\w+)*|[^\w\s]")
_TITLES = r"(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|Jr)\.)(?<!\b(?:Mrs|Gen|Sen|Rep|Gov|Col|Sgt)\.)"
_BREAK = re.compile(rf"\n\s*\n|(?:(?<=[.!?])|(?<=[.!?][\"')])){_TITLES}\s+(?=[\"'(\[]?[A-Z])")
"""Sentence boundaries: an empty line, or a full stop before a capital letter."""


class Mention(NamedTuple):
    """The head of an entity's mention: characters `start` to `end` (exclusive) of the text without tags."""

    start: int
    end: int
    text: str


def documents(folder: Path) -> list[Path]:
    """Return the annotation files below a folder.

    LDC ships every document in several versions and three languages. The final annotation is `timex2norm`; if there are
    folders with these names, only the English documents of `timex2norm` are returned.
    """
    paths = sorted(folder.rglob(f"*{ANNOTATION}"))
    for part in _PREFERRED:
        paths = [path for path in paths if part in path.relative_to(folder).parts] or paths
    return paths


def read_document(reading: Reading, path: Path, subtype: Callable[[str], str]) -> tuple[Example, ...]:
    """Read the relations of a document.

    Args:
        reading: Collects the problems and the counts of what is left out.
        path: The `.apf.xml` file; the `.sgm` file is in the same folder.
        subtype: Returns the label of a SUBTYPE, or raises `RowError`.
    """
    source = path.with_name(path.name.removesuffix(ANNOTATION) + ".sgm")
    try:
        text = _TAG.sub("", source.read_text(encoding="utf-8"))
        root = _xml(path)
        mentions = dict(map(_mention, root.iter("entity_mention")))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError, RowError) as error:
        file = source if isinstance(error, OSError | UnicodeDecodeError) else path
        reading.problems.append(Problem(str(file), None, f"cannot be read: {reason_of(error, file)}"))
        return ()
    shifted = {name for name, mention in mentions.items() if not _matches_text(text, mention)}
    breaks = [(match.start(), match.end()) for match in _BREAK.finditer(text)]

    def parse(pair: tuple[ElementTree.Element, ElementTree.Element]) -> Iterator[Example]:
        relation, mention = pair
        name = mention.get("ID", "without ID")
        if relation.get("TYPE") == WITHOUT_SUBTYPE:
            reading.left_out[f"{WITHOUT_SUBTYPE} relations, which have no subtype"] += 1
            return
        try:
            ends = [_argument(mention, role, mentions) for role in ("Arg-1", "Arg-2")]
            label = subtype(relation.get("SUBTYPE", ""))
        except RowError as error:
            raise RowError(f"relation_mention {name}: {error}") from None
        if shifted.intersection(ends):
            reading.left_out["relations whose offsets do not match the annotated words"] += 1
            return
        head, tail = (mentions[end] for end in ends)
        yield _example(text, breaks, head, tail).labelled(label)

    pairs = ((relation, mention) for relation in root.iter("relation") for mention in relation.iter("relation_mention"))
    return reading.examples(path, ((None, pair) for pair in pairs), parse)


def _xml(path: Path) -> ElementTree.Element:
    """Parse a file, and refuse entity declarations, which could expand without limit (expat loads nothing external)."""
    content = path.read_bytes()
    if b"<!ENTITY" in content:
        raise RowError("declares XML entities, which ACE 2005 annotations never do")
    return ElementTree.fromstring(content)  # noqa: S314 - without entities there is nothing to expand


def _mention(element: ElementTree.Element) -> tuple[str, Mention]:
    name = element.get("ID", "")
    for place in (*element.findall("head/charseq"), *element.findall("extent/charseq")):
        start, last = place.get("START", ""), place.get("END", "")
        if start.isdecimal() and last.isdecimal():
            return name, Mention(int(start), int(last) + 1, place.text or "")
    raise RowError(f"entity_mention {name!r} has no head/charseq with whole numbers START and END")


def _argument(mention: ElementTree.Element, role: str, known: Collection[str]) -> str:
    """Return the ID of the entity mention that plays a role."""
    for argument in mention.iter("relation_mention_argument"):
        if argument.get("ROLE") == role:
            name = argument.get("REFID", "")
            if name not in known:
                raise RowError(f"no entity_mention {name!r}")
            return name
    raise RowError(f"no relation_mention_argument with ROLE {role!r}")


def _matches_text(text: str, mention: Mention) -> bool:
    words = unescape(text[mention.start : mention.end]).split()
    return bool(words) and (not mention.text.strip() or words == unescape(mention.text).split())


def _example(text: str, breaks: Sequence[tuple[int, int]], head: Mention, tail: Mention) -> Example:
    """Cut out the sentences that contain both heads, and divide them into words at the bounds of the heads."""
    first, last = min(head.start, tail.start), max(head.end, tail.end)
    begin = max((end for _, end in breaks if end <= first), default=0)
    finish = min((start for start, _ in breaks if start >= last), default=len(text))
    bounds = sorted({begin, head.start, head.end, tail.start, tail.end, finish})
    tokens: list[str] = []
    position = {begin: 0}
    for start, end in pairwise(bounds):
        tokens += _WORD.findall(unescape(text[start:end]))
        position[end] = len(tokens)
    return Example.of_relation(
        tokens, Span(position[head.start], position[head.end]), Span(position[tail.start], position[tail.end])
    )
