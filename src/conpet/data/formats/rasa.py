"""Training data of Rasa: `nlu.yml`, and the Markdown of Rasa 1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from conpet.data.raw import Note, RawItem, RawRow
from conpet.data.source import Source
from conpet.errors import Scope, plural

_ENTITY = re.compile(
    r"(?<!\\)\[(?P<text>[^\[\]]+?)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\{[^{}]*\}|\[\s*\{.*?\}\s*\])", re.DOTALL
)
_BULLET = re.compile(r"\s*[-*+]\s?(.*)", re.DOTALL)
_SECTION = re.compile(r"^\s{0,3}#+\s*(?P<kind>\w+)\s*:\s*(?P<name>.+?)\s*$")
_HEADING = re.compile(r"^\s{0,3}#+\s*\S")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EXPECTED = 'expected "nlu:" with a list of "- intent: NAME" and "examples: |"'


def without_entities(text: str) -> str:
    """Return an example with its entity marks removed: `[Berlin](city)` becomes `Berlin`."""
    return _ENTITY.sub(lambda mark: mark["text"], text).strip()


def looks_like_rasa(head: str, suffix: str) -> bool:
    """Return whether the beginning of a file is that of Rasa's training data."""
    if suffix == ".md":
        return re.search(r"^\s{0,3}#+\s*(intent|synonym|regex|lookup)\s*:", head, re.MULTILINE) is not None
    return re.search(r"^nlu\s*:", head, re.MULTILINE) is not None


def read_rasa_yaml(source: Source) -> Iterator[RawItem]:
    """Read the intents of an `nlu.yml`; each example is a row at its line, labelled with its intent."""
    with source.text() as stream:
        text = stream.read()
    if problem := source.undecodable(text):
        yield problem
        return
    try:
        documents = [node for node in yaml.compose_all(text, Loader=_LOADER) if node is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        yield source.problem(line, f"not valid YAML: {error.problem}", Scope.REST)
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield source.problem(None, f"not valid YAML: {str(error).partition(chr(10))[0]}")
        return
    sections = [section for document in documents for section in _values(document).get("nlu", [])]
    if not sections:
        yield source.problem(None, f"contains no training data of Rasa; {_EXPECTED}")
        return
    skipped: Counter[str] = Counter()
    for section in sections:
        items = section.value if isinstance(section, yaml.SequenceNode) else [section]
        for item in items:
            yield from _yaml_section(item, source, skipped)
    yield from _skipped(skipped, source)


def _values(node: Any) -> dict[str, list[Any]]:
    """Return the values of a mapping by key; a key may be given more than once."""
    found: dict[str, list[Any]] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        found.setdefault(str(key.value).strip(), []).append(value)
    return found


def _yaml_section(item: Any, source: Source, skipped: Counter[str]) -> Iterator[RawItem]:
    values = _values(item)
    line = item.start_mark.line + 1
    if "intent" not in values:
        kind = next((kind for kind in ("synonym", "regex", "lookup") if kind in values), None)
        if kind is None:
            yield source.problem(line, f"is no section of Rasa's training data; {_EXPECTED}")
        else:
            skipped[f"{kind} section"] += 1
        return
    intent = values["intent"][0].value
    if not isinstance(intent, str) or not intent.strip():
        yield source.problem(line, "an intent needs a name")
        return
    if "examples" not in values:
        skipped["empty intent"] += 1
    for examples in values.get("examples", []):
        for row, text in _yaml_examples(examples, skipped):
            if plain := without_entities(text):
                yield RawRow(row, {"text": plain, "label": intent.strip()})


def _yaml_examples(node: Any, skipped: Counter[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each example: lines of a block, or items of a list, some with metadata."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            for value in _values(item).get("text", []) if isinstance(item, yaml.MappingNode) else [item]:
                if isinstance(value, yaml.ScalarNode):
                    row = value.start_mark.line + 1 + (value.style in ("|", ">"))
                    yield row, _bullet(value.value) if value.style in ("|", ">") else value.value
        return
    if not isinstance(node, yaml.ScalarNode):
        return
    first = node.start_mark.line + 1 + (node.style in ("|", ">"))
    for offset, line in enumerate(node.value.split("\n")):
        if not line.strip():
            continue
        if line.lstrip().startswith("-"):
            yield first + offset, line.lstrip()[1:]
        else:
            skipped["other line"] += 1


def _bullet(text: str) -> str:
    found = _BULLET.fullmatch(text)
    return found[1] if found and text.lstrip().startswith("- ") else text


def read_rasa_markdown(source: Source) -> Iterator[RawItem]:
    """Read the sections `## intent:NAME` of the Markdown of Rasa 1; each example is a row at its line."""
    with source.text() as stream:
        text = stream.read()
    if problem := source.undecodable(text):
        yield problem
        return
    text = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)
    skipped: Counter[str] = Counter()
    label: str | None = None
    found = False
    for row, line in enumerate(text.split("\n"), start=1):
        if section := _SECTION.match(line):
            kind = section["kind"].lower()
            label = section["name"] if kind == "intent" else None
            found = found or label is not None
            if label is None:
                skipped[f"{kind} section"] += 1
        elif _HEADING.match(line):
            label = None
        elif label is not None and (bullet := _BULLET.fullmatch(line)):
            if plain := without_entities(bullet[1]):
                yield RawRow(row, {"text": plain, "label": label})
        elif label is not None and line.strip():
            skipped["other line"] += 1
    if not found:
        yield source.problem(
            None, 'contains no training data of Rasa 1; expected "## intent:NAME" and "- example" lines'
        )
    yield from _skipped(skipped, source)


def _skipped(skipped: Counter[str], source: Source) -> Iterator[Note]:
    if skipped:
        parts = ", ".join(plural(count, kind) for kind, count in sorted(skipped.items()))
        yield Note(source.file, f"only intents are read; left out: {parts}")
