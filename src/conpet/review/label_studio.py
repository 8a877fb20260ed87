"""Label Studio: tasks with answers as predictions and verdicts as annotations, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from conpet.data import Example, Kind, check_example
from conpet.data.rows import RowError, parse_label, parse_row
from conpet.errors import DataError, Problem
from conpet.review.records import ReviewItem, Verdict, VerdictKind

LABEL, NEW_LABEL, TEXT = "label", "new_label", "text"
"""Names of the controls and of the object in Label Studio's configuration."""
ROW = "conpet"
"""Name of the data field with the whole input, from which it is rebuilt."""
NOTHING = "(nothing learned fits)"
"""Choice for an input that belongs to nothing learned."""
REVIEWER = "label-studio"
_MOST_LABELS_AS_BUTTONS = 30


@dataclass(frozen=True, slots=True)
class Annotation:
    """A verdict that was given in Label Studio.

    Attributes:
        reviewer: Who.
        label: The label; None if nothing learned fits, or it was skipped.
        skipped: Whether it was skipped.
        seconds: Time taken, or None.
        time: When, in seconds since 1970, or None.
    """

    reviewer: str
    label: str | None
    skipped: bool
    seconds: float | None
    time: float | None


@dataclass(frozen=True, slots=True)
class AnnotatedInput:
    """An input with its annotations."""

    example: Example
    annotations: tuple[Annotation, ...]


def config_of(labels: Sequence[str]) -> str:
    """Return the labelling configuration (XML) for these labels."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in [*labels, NOTHING])
    layout = "" if len(labels) <= _MOST_LABELS_AS_BUTTONS else ' layout="select"'
    return (
        "<View>\n"
        f'  <Text name="{TEXT}" value="${TEXT}"/>\n'
        f'  <Choices name="{LABEL}" toName="{TEXT}" choice="single"{layout}>\n{choices}\n  </Choices>\n'
        f'  <TextArea name="{NEW_LABEL}" toName="{TEXT}" maxSubmissions="1" placeholder="New label"/>\n'
        "</View>\n"
    )


def task_of(item: ReviewItem) -> dict[str, Any]:
    """Return an item as a task for Label Studio."""
    row = {name: value for name, value in item.example.to_json().items() if name not in ("label", "id")}
    task: dict[str, Any] = {
        "data": {TEXT: shown(item.example), ROW: json.dumps(row, ensure_ascii=False, sort_keys=True)},
        "meta": {"item": item.id, "kind": str(item.kind)},
    }
    if item.answered:
        generation = f"generation {item.generation}" if item.generation is not None else "conpet"
        prediction = {"model_version": generation, "result": [_choice(item.answer)]}
        task["predictions"] = [prediction | ({} if item.confidence is None else {"score": item.confidence})]
    if item.verdicts:
        task["annotations"] = [_annotation(verdict) for verdict in item.verdicts]
    return task


def shown(example: Example) -> str:
    """Return an input as people read it: marked spans stand in brackets."""
    if example.kind is Kind.TEXT:
        return example.text
    spans = {"head": example.head, "tail": example.tail, "mention": example.mention}
    before = {span.start: f"[{name}: " for name, span in spans.items() if span is not None}
    after = {span.end - 1 for span in spans.values() if span is not None}
    return " ".join(
        f"{before.get(at, '')}{token}{']' if at in after else ''}" for at, token in enumerate(example.tokens)
    )


def _choice(label: str | None) -> dict[str, Any]:
    value = {"choices": [NOTHING if label is None else label]}
    return {"from_name": LABEL, "to_name": TEXT, "type": "choices", "value": value}


def _annotation(verdict: Verdict) -> dict[str, Any]:
    skipped = verdict.verdict is VerdictKind.SKIP
    result = [] if skipped else [_choice(verdict.label)]
    if verdict.verdict is VerdictKind.NEW:
        value = {"text": [verdict.label]}
        result = [{"from_name": NEW_LABEL, "to_name": TEXT, "type": "textarea", "value": value}]
    return {
        "result": result,
        "was_cancelled": skipped,
        "lead_time": verdict.seconds,
        "created_at": verdict.time.isoformat(),
        "completed_by": {"email": verdict.reviewer},
    }


def is_export(document: Any) -> bool:
    """Return whether a JSON document is a list of Label Studio's tasks."""
    return isinstance(document, list) and all(
        isinstance(one, Mapping) and (isinstance(one.get("data"), Mapping) or "annotator" in one or "lead_time" in one)
        for one in document
    )


def read_tasks(document: Sequence[Mapping[str, Any]], source: str) -> list[AnnotatedInput]:
    """Read tasks as Label Studio exports them: JSON, or JSON-MIN.

    Args:
        document: The tasks.
        source: Name of the file, for errors.

    Raises:
        DataError: Some cannot be read; `problems` lists all of them.
    """
    read, problems = [], []
    for number, task in enumerate(document, start=1):
        try:
            one = AnnotatedInput(_example(task.get("data", task)), tuple(_annotations(task)))
        except RowError as error:
            problems.append(Problem(source, number, str(error)))
            continue
        read.append(one)
        problems += [Problem(source, number, reason) for reason in check_example(one.example)]
    if problems:
        raise DataError(f"{source}: some tasks cannot be read; nothing was imported", problems)
    return read


def _example(data: Mapping[str, Any]) -> Example:
    stored = data.get(ROW)
    if isinstance(stored, str):
        try:
            row = json.loads(stored)
        except ValueError:
            raise RowError(f"data.{ROW} is not the JSON that conpet wrote") from None
        return parse_row(row, labelled=False)
    if isinstance(data.get(TEXT), str):
        return parse_row({"text": data[TEXT]}, labelled=False)
    texts = [value for value in data.values() if isinstance(value, str)]
    if len(texts) != 1:
        raise RowError(f"data has no field `{TEXT}`, and not one single text instead")
    return parse_row({"text": texts[0]}, labelled=False)


def _annotations(task: Mapping[str, Any]) -> Iterator[Annotation]:
    given = task.get("annotations", task.get("completions"))
    if isinstance(given, list):
        for one in given:
            if not isinstance(one, Mapping):
                raise RowError("an annotation is not an object")
            skipped = bool(one.get("was_cancelled")) or not one.get("result")
            yield _made(one, None if skipped else _chosen(one["result"]), skipped, one.get("completed_by"))
    elif LABEL in task or NEW_LABEL in task:  # JSON-MIN
        label = _single([task[name] for name in (NEW_LABEL, LABEL) if task.get(name)][:1])
        yield _made(task, label, False, task.get("annotator"))


def _made(one: Mapping[str, Any], label: str | None, skipped: bool, by: Any) -> Annotation:
    seconds = one.get("lead_time")
    return Annotation(
        _reviewer(by),
        None if label == NOTHING else label,
        skipped,
        float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < float("inf") else None,
        _time(one.get("created_at")),
    )


def _reviewer(by: Any) -> str:
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("id")
    if isinstance(by, str) and by.strip():
        return by.strip()
    return REVIEWER if by is None or isinstance(by, str) else f"{REVIEWER} user {by}"


def _time(given: Any) -> float | None:
    try:
        return datetime.fromisoformat(given).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _chosen(result: Any) -> str:
    """Return the label of an annotation; a new label comes before a choice."""
    parts = [part for part in result if isinstance(part, Mapping)] if isinstance(result, list) else []
    for kind, field in (("textarea", "text"), ("choices", "choices")):
        values = [
            value for part in parts if part.get("type") == kind for value in _listed(part.get("value", {}), field)
        ]
        if values:
            return _single(values)
    raise RowError("its annotation has no choice; a task for conpet has one `Choices` control")


def _listed(value: Any, field: str) -> Iterable[Any]:
    found = value.get(field, []) if isinstance(value, Mapping) else []
    return found if isinstance(found, list) else [found]


def _single(values: Sequence[Any]) -> str:
    if len(values) > 1:
        raise RowError(f"its annotation has {len(values)} labels; conpet learns one for each input")
    label = parse_label(values[0])
    if label is None:
        raise RowError("its label is empty")
    return label
