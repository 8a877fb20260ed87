"""Label Studio's JSON: what is exported can be read again, and what its users annotate becomes verdicts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Any

import pytest

from conpet import Example
from conpet.data import Span
from conpet.errors import DataError
from conpet.review.label_studio import NOTHING, Annotation, config_of, is_export, read_tasks, shown, task_of
from conpet.review.records import ItemKind, ItemState, ReviewItem, Verdict, VerdictKind

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def item(example: Example, *verdicts: Verdict, decision: str = "answer") -> ReviewItem:
    return ReviewItem(
        7,
        ItemKind.RANDOM,
        ItemState.OPEN,
        example,
        NOW,
        generation=3,
        label="lost",
        confidence=0.7,
        decision=decision,
        verdicts=verdicts,
    )


def choice(label: str, **more: Any) -> dict[str, Any]:
    result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
    return {"result": [result], **more}


@pytest.mark.parametrize(
    "example",
    [
        Example.of_text('my card <b>was</b> "eaten"'),
        Example.of_relation(["Ada", "met", "Bob"], Span(0, 1), Span(2, 3)),
        Example.of_mention(["in", "New", "York"], Span(1, 3)),
    ],
)
def test_exported_items_are_read_again(example: Example) -> None:
    said = [
        Verdict("ann", VerdictKind.CORRECT, "new", "", NOW, 4.5),
        Verdict("ben", VerdictKind.NEW, "eaten", "", NOW, 2.0),
        Verdict("cem", VerdictKind.NONE, None, "", NOW, 1.0),
        Verdict("dan", VerdictKind.SKIP, None, "", NOW, 0.0),
    ]
    task = task_of(item(example, *said))
    assert task["predictions"][0]["result"][0]["value"]["choices"] == ["lost"]
    assert task["predictions"][0]["score"] == 0.7
    assert is_export([task])
    (read,) = read_tasks([task], "tasks.json")
    assert read.example == example
    when = NOW.timestamp()
    assert read.annotations == (
        Annotation("ann", "new", False, 4.5, when),
        Annotation("ben", "eaten", False, 2.0, when),
        Annotation("cem", None, False, 1.0, when),
        Annotation("dan", None, True, 0.0, when),
    )


def test_spans_are_marked_and_a_refusal_is_a_choice() -> None:
    relation = Example.of_relation(["Ada", "met", "Bob"], Span(0, 1), Span(2, 3))
    assert shown(relation) == "[head: Ada] met [tail: Bob]"
    declined = task_of(item(relation, decision="decline"))
    assert declined["predictions"][0]["result"][0]["value"]["choices"] == [NOTHING]
    assert "annotations" not in declined


def test_the_configuration_names_every_label() -> None:
    root = ET.fromstring(config_of(['a "quoted" <label>', "b & c"]))  # noqa: S314 - made here
    assert [one.get("value") for one in root.iter("Choice")] == ['a "quoted" <label>', "b & c", NOTHING]
    assert 'layout="select"' in config_of([str(number) for number in range(40)])


def test_exports_of_label_studio_are_read_in_its_forms() -> None:
    document = [
        {"id": 1, "data": {"text": "a"}, "annotations": [choice("lost", completed_by=3, lead_time=2)]},
        {
            "id": 2,
            "data": {"question": "b"},
            "annotations": [choice("lost", completed_by={"email": "ann@b.org"})],
        },
        {"id": 3, "data": {"text": "c"}, "annotations": [{"result": [], "was_cancelled": True}]},
        {"id": 4, "data": {"text": "d"}, "annotations": []},
    ]
    read = read_tasks(document, "export.json")
    assert [one.example.text for one in read] == ["a", "b", "c", "d"]
    assert [one.annotations[0].reviewer for one in read[:3]] == [
        "label-studio user 3",
        "ann@b.org",
        "label-studio",
    ]
    assert read[2].annotations[0].skipped
    assert read[3].annotations == ()
    small = [{"id": 1, "text": "a", "label": "lost", "annotator": 2, "lead_time": 1.5}]
    assert is_export(small)
    assert read_tasks(small, "min.json")[0].annotations[0].label == "lost"
    assert not is_export([{"text": "a", "label": "lost"}])
    assert not is_export({"text": "a"})


def test_every_wrong_task_is_named() -> None:
    two = choice("a")
    two["result"][0]["value"]["choices"] = ["a", "b"]
    document = [
        {"data": {"text": " "}},
        {"data": {"text": "a"}, "annotations": [two]},
        {"data": {"one": "a", "two": "b"}},
        {"data": {"text": "a"}, "annotations": [{"result": [{"type": "rating"}]}]},
        {"data": {"text": "fine"}},
    ]
    with pytest.raises(DataError) as error:
        read_tasks(document, "tasks.json")
    assert [(problem.file, problem.row) for problem in error.value.problems] == [("tasks.json", n) for n in range(1, 5)]
