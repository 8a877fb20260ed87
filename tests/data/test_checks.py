"""Tasks built in code pass the same checks as files."""

from typing import Any

import numpy as np
import pytest

from conpet.data import Example, Span, Task, TaskStream, check_example
from conpet.errors import DataError

WORDS = ("Ada", "met", "Bob", " ")


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Example.of_text("  \n"), "empty text"),
        (Example.of_text("a", "\ud800"), "label is not valid Unicode (half a surrogate pair)"),
        (Example.of_mention([], Span(0, 1)), "empty tokens"),
        (Example.of_mention(WORDS, Span(2, 5)), "mention span 2:5 is outside the 4 tokens"),
        (Example.of_mention(WORDS, Span(-1, 1)), "mention span -1:1 is outside the 4 tokens"),
        (Example.of_mention(WORDS, Span(1, 1)), "mention span 1:1 is empty (its end is exclusive)"),
        (Example.of_mention(WORDS, Span(3, 4)), "mention span 3:4 contains only blanks"),
        (Example.of_relation(WORDS, Span(0, 1), Span(9, 10)), "tail span 9:10 is outside the 4 tokens"),
    ],
)
def test_a_wrong_example_is_named(example: Example, reason: str) -> None:
    assert check_example(example) == [reason]
    sound = [Example.of_text("x", "l1"), Example.of_text("y", "l2")]
    with pytest.raises(DataError) as caught:
        Task("t", (*sound, example))
    assert reason in [problem.reason for problem in caught.value.problems if problem.row == 3]
    assert {problem.file for problem in caught.value.problems} == {"task 't' (train)"}


@pytest.mark.parametrize(
    ("name", "said"), [(1, "named by text, not 1"), ("caf\udce9", "its name is not valid Unicode")]
)
def test_a_task_needs_a_name_of_text(name: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Task(name, train=(Example.of_text("x", "a"), Example.of_text("y", "b")))


@pytest.mark.parametrize("given", [None, 5, "text", {"text": "x", "label": "a"}])
def test_a_subset_is_a_list(given: Any) -> None:
    with pytest.raises(DataError, match=r"\(train\): is .*; give a list of examples"):
        Task("t", train=given)


@pytest.mark.parametrize("key", ["Text", " TEXT "])
def test_keys_of_rows_count_in_any_case_as_in_files(key: str) -> None:
    assert Task("t", train=[{key: "x", "Label": 1}, {key: "y", "LABEL": 2, "other": 3}]).labels == ("1", "2")  # type: ignore[arg-type,list-item]
    with pytest.raises(DataError, match=r"row 1: missing text .*; keys: 'txt', 'label'"):
        Task("t", train=[{"txt": "x", "label": 1}])  # type: ignore[arg-type,list-item]


def test_labels_of_python_are_as_those_of_files() -> None:
    numbers = [Example.of_text(f"t{at}", label) for at, label in enumerate((1, np.int64(2), ["a"], 3.0))]  # type: ignore[arg-type]
    assert Task("t", tuple(numbers)).labels == ("1", "2", "3", "a")
    rows = [{"text": "x", "label": 1}, {"text": "y", "label": "z"}]
    assert Task("t", rows).labels == ("1", "z")  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        Task("t", (*numbers, Example.of_text("x", 1.5), None, Example.of_text("y", True)))  # type: ignore[arg-type]
    assert [(problem.row, problem.reason.partition(";")[0]) for problem in caught.value.problems] == [
        (5, "label must be text or a whole number, not 1.5"),
        (6, "is None"),
        (7, "label must be text or a whole number, not True"),
    ]


def test_sound_examples_pass_and_lists_become_tuples() -> None:
    relation = Example.of_relation(["a", "b"], Span(0, 1), Span(1, 2), "x")
    assert check_example(relation) == []
    assert relation.tokens == ("a", "b")
    task = Task("t", [relation, Example.of_relation(["c", "b"], Span(0, 1), Span(1, 2), "y")])  # type: ignore[arg-type]
    assert task.labels == ("x", "y")
    assert Example.from_json(relation.to_json()) == relation


def reasons(**subsets: tuple[Example, ...]) -> list[tuple[str, int | None, str]]:
    with pytest.raises(DataError) as caught:
        Task("t", **subsets)
    return [(problem.file, problem.row, problem.reason) for problem in caught.value.problems]


def test_every_problem_of_a_task_is_listed() -> None:
    x, y = Example.of_text("x", "1"), Example.of_text("y", "2")
    assert reasons(train=()) == [("task 't'", None, "no training example: there are no rows, or none that can be used")]
    assert reasons(train=(x,)) == [("task 't'", None, "only one label ('1'): a task needs two or more")]
    assert reasons(train=(x, y, x.labelled("2"), y.labelled(" "))) == [
        ("task 't' (train)", 4, "missing label"),
        ("task 't' (train)", 3, "label '2' contradicts row 1: the same input has '1'"),
    ]
    assert reasons(train=(x, y), test=(y, Example.of_text("z", "3"))) == [
        ("task 't' (test)", 2, "label '3' has no training example"),
        ("task 't' (test)", 1, "the same input is also a training example (row 2)"),
    ]
    assert reasons(train=(x, y, Example.of_mention(["a"], Span(0, 1), "1"))) == [
        ("task 't' (train)", 3, "is a typing example; the first training row is a text example")
    ]


def test_exact_copies_in_training_are_fine() -> None:
    x, y = Example.of_text("x", "1"), Example.of_text("y", "2")
    assert len(Task("t", (x, y, x)).train) == 3


def test_a_stream_names_the_owner_of_a_label() -> None:
    first = Task("first", (Example.of_text("a", "1"), Example.of_text("b", "2")))
    second = Task("second", (Example.of_text("c", "3"), Example.of_text("d", "2")))
    with pytest.raises(DataError, match=r"task 'second' \(train\): row 2: label '2' belongs to .* 'first'"):
        TaskStream((first, second))
    with pytest.raises(DataError, match="an earlier task of the stream has the same name"):
        TaskStream((first, first))
    assert TaskStream((first,))[0] is first
    assert list(TaskStream((first,))[:1]) == [first]
