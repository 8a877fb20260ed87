"""Stand-off annotations of brat."""

from __future__ import annotations

from pathlib import Path

from conpet.data import read_task
from tests.helpers.reading import inputs, labelled, notes, problems, put

TEXT = "A title\nAda Lovelace met Bob (in London).\nThe end.\n"
MENTIONS = """T1\tPerson 8 20\tAda Lovelace
T2\tPerson 25 28\tBob
T3\tPlace 33 39\tLondon
T4\tThing 0 1;2 7\tA title
#1\tAnnotatorNotes T1\ta countess
"""
RELATIONS = "R1\tknows Arg1:T1 Arg2:T2\nR2\tin Arg1:T1 Arg2:T3\nR3\tis Arg1:T4 Arg2:T1\n"


def document(folder: Path, annotations: str, name: str = "one") -> Path:
    put(folder / f"{name}.txt", TEXT)
    return put(folder / f"{name}.ann", annotations)


def test_annotations_become_mentions(tmp_path: Path) -> None:
    path = document(tmp_path, MENTIONS)
    assert labelled(path) == [("Ada Lovelace", "Person"), ("Bob", "Person"), ("London", "Place")]
    assert notes(path) == ["left out: 1 comment, 1 discontinuous annotation"]
    assert read_task(path, all_rows=True).train[2].tokens == ("Ada", "Lovelace", "met", "Bob", "(in", "London", ").")


def test_relations_become_relations(tmp_path: Path) -> None:
    path = document(tmp_path, MENTIONS + RELATIONS)
    first, second = read_task(path, all_rows=True).train
    assert (first.label, second.label) == ("knows", "in")
    assert first.head is not None
    assert first.tokens[first.head.start : first.head.end] == ("Ada", "Lovelace")
    assert "left out: 1 comment, 1 discontinuous annotation, 1 incomplete relation" in notes(path)
    assert len(labelled(path, format="brat-mentions")) == 3


def test_a_folder_of_documents_is_a_task_and_so_is_one_with_subsets(tmp_path: Path) -> None:
    document(tmp_path / "a", MENTIONS)
    document(tmp_path / "a", "T1\tPlace 33 39\tLondon\nT9\tPlace 90 99\tx\n", "two")
    assert len(inputs(tmp_path / "a" / "one.ann")) == 3
    assert problems(tmp_path / "a") == [(2, "span 90:99 is empty or outside the 51 characters of the text")]
    document(tmp_path / "b" / "train", MENTIONS)
    document(tmp_path / "b" / "test", "T1\tPlace 33 34\tL\n")
    task = read_task(tmp_path / "b")
    assert (task.name, len(task.train) + len(task.validation), len(task.test)) == ("b", 3, 1)


def test_wrong_annotations_say_where(tmp_path: Path) -> None:
    assert problems(document(tmp_path, "T1\tPerson 8 11\tBob\nT2\tPerson x\n")) == [
        (1, "span 8:11 is 'Ada' in the text, not 'Bob'"),
        (2, "expected 'TYPE START END', found 'Person x'"),
    ]
    (tmp_path / "one.txt").unlink()
    assert problems(tmp_path / "one.ann") == [(None, "has no text: one.txt is missing")]
