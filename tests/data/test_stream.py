"""Streams: the order of tasks, `stream.yaml`, and all problems of all tasks at once."""

import json
import sys
from pathlib import Path
from subprocess import run

import pytest

from conpet.data import read_stream
from conpet.data.files import readable_endings
from conpet.errors import DataError


def write_task(path: Path, *labels: str, rows: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"text": f"{label} {at}", "label": label} for label in labels for at in range(rows)]
    path.write_text("\n".join(map(json.dumps, lines)))


def problems(path: Path) -> list[tuple[str, int | None, str]]:
    with pytest.raises(DataError) as caught:
        read_stream(path)
    return [(Path(one.file).name, one.row, one.reason) for one in caught.value.problems]


def test_files_and_folders_are_tasks_in_natural_order(tmp_path: Path) -> None:
    write_task(tmp_path / "task-10.jsonl", "e", "f")
    write_task(tmp_path / "task-2" / "train.jsonl", "c", "d")
    write_task(tmp_path / "task-2" / "tset.jsonl", "c", "d")
    write_task(tmp_path / "Task-1.jsonl", "a", "b")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden").mkdir()
    stream = read_stream(tmp_path)
    assert [task.name for task in stream] == ["Task-1", "task-2", "task-10"]
    assert "tset.jsonl was ignored: it is not named train, validation or test" in stream[1].notes


def test_stream_yaml_orders_names_and_sets(tmp_path: Path) -> None:
    write_task(tmp_path / "x.jsonl", "a", "b")
    write_task(tmp_path / "y.jsonl", "c", "d")
    (tmp_path / "stream.yaml").write_text(
        "tasks:\n- {path: y.jsonl, name: 二, template: '{text} ?', settings: {module: {rank: 4}}}\n- path: x.jsonl\n",
        encoding="utf-8",
    )
    first, second = read_stream(tmp_path)
    assert (first.name, first.template, first.settings) == ("二", "{text} ?", {"module": {"rank": 4}})
    assert (second.name, second.template, second.settings) == ("x", None, {})


def test_one_file_or_task_folder_is_a_stream_of_one(tmp_path: Path) -> None:
    write_task(tmp_path / "cards" / "train.jsonl", "a", "b")
    assert [task.name for task in read_stream(tmp_path / "cards")] == ["cards"]
    assert [task.name for task in read_stream(tmp_path / "cards" / "train.jsonl")] == ["train"]


@pytest.mark.parametrize(
    ("content", "row", "says"),
    [
        ("task: []", None, "task: unknown key; known: tasks"),
        (
            "tasks: [{path: x.jsonl, nmae: y}]",
            None,
            "tasks.0.nmae: unknown key; known: path, name, template, settings, columns, "
            "encoding, format, inclusive_ends",
        ),
        ("tasks: [{name: y}]", None, "tasks.0.path is missing"),
        ("tasks: [{path: x.jsonl, settings: {rnak: 1}}]", None, "unknown setting 'rnak'"),
        ("tasks: [{path: x.jsonl, template: '{txt}'}]", None, "unknown field"),
        ("tasks: [{path: none.jsonl}]", None, "no such file or folder"),
        ("tasks: []", None, "the list is empty"),
        ("", None, "tasks is missing"),
        ("- a", None, "the file must be"),
        ("a: b\ntasks: [", 2, "not valid YAML"),
        ("tasks: [\x00]", None, "cannot be read"),
    ],
)
def test_a_wrong_stream_yaml_says_where(tmp_path: Path, content: str, row: int | None, says: str) -> None:
    write_task(tmp_path / "x.jsonl", "a", "b")
    (tmp_path / "stream.yaml").write_text(content)
    assert any(says in said and at == row for _, at, said in problems(tmp_path))


def test_plain_lines_beside_data_are_ignored_and_alone_say_what_they_lack(tmp_path: Path) -> None:
    write_task(tmp_path / "cards" / "train.jsonl", "a", "b")
    (tmp_path / "cards" / "train.txt").write_text("one\n")
    (tmp_path / "cards" / "README.md").write_text("# Cards\n")
    (task,) = read_stream(tmp_path / "cards", all_rows=True)
    assert (task.labels, task.notes) == (("a", "b"), ())
    (tmp_path / "cards" / "train.jsonl").unlink()
    assert "plain lines have no labels" in problems(tmp_path / "cards")[0][2]


def test_a_stream_yaml_says_how_to_read_each_task(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("satz;art\ncafé;a\nthé;b\n".encode("cp1252"))
    (tmp_path / "b.txt").write_text("Ada B-PER\nmet O\nOslo B-LOC\n")
    (tmp_path / "c.jsonl").write_text(
        '{"text": "Ada met", "mention": [0, 2], "label": "p"}\n{"text": "in Oslo", "mention": [3, 6], "label": "q"}\n'
    )
    (tmp_path / "stream.yaml").write_text(
        "tasks:\n- {path: a.csv, columns: {text: satz, label: art}, encoding: cp1252}\n"
        "- {path: b.txt, format: conll}\n- {path: c.jsonl, inclusive_ends: true}\n"
    )
    a, b, c = read_stream(tmp_path, all_rows=True)
    assert [example.text for example in a.train] == ["café", "thé"]
    assert b.labels == ("LOC", "PER")
    assert c.train[1].tokens == ("in", "Oslo")


def test_all_problems_of_all_tasks_come_together(tmp_path: Path) -> None:
    write_task(tmp_path / "1.jsonl", "a", "b", rows=1)
    write_task(tmp_path / "2.jsonl", "b", "c", rows=2)
    write_task(tmp_path / "3.jsonl", "d")
    write_task(tmp_path / "4" / "test.jsonl", "e", "f")
    (tmp_path / "5.jsonl").write_text('{"text": "", "label": "g"}\nnonsense\n')
    (tmp_path / "6.xls").write_text("a\tb")
    (tmp_path / "README.md").write_text("# About these files\n")
    write_task(tmp_path / "1.csv.jsonl" / "train.jsonl", "h", "i")
    write_task(tmp_path / "1" / "train.jsonl", "j", "k")
    found = set(problems(tmp_path))
    assert found >= {
        ("2.jsonl", 1, "label 'b' belongs to the earlier task '1'"),
        ("2.jsonl", 2, "label 'b' belongs to the earlier task '1'"),
        ("3.jsonl", None, "only one label ('d'): a task needs two or more"),
        ("4", None, "contains no train file (train.jsonl, train.csv, train.tsv, ...)"),
        ("5.jsonl", 1, "empty text"),
        ("6.xls", None, f"unknown file format; readable: {readable_endings()}; save it as .xlsx or CSV"),
        ("task '1'", None, "an earlier task of the stream has the same name"),
    }
    assert any(file == "5.jsonl" and row == 2 and "not valid JSON" in said for file, row, said in found)


def test_other_names_of_subsets_and_files_of_other_programs(tmp_path: Path) -> None:
    for folder, train, test in (
        ("long", "training", "Testing"),
        ("hub", "train-00000-of-00001", "test-00000-of-00001"),
    ):
        write_task(tmp_path / folder / f"{train}.jsonl", "a", "b")
        write_task(tmp_path / folder / f"{test}.jsonl", "a", "b", rows=2)
        rows = (tmp_path / folder / f"{test}.jsonl").read_text().replace('"text": "', '"text": "held out ')
        (tmp_path / folder / f"{test}.jsonl").write_text(rows)
        (tmp_path / folder / "._train.jsonl").write_bytes(b"\0\5")
        (tmp_path / folder / "~$train.xlsx").write_bytes(b"lock")
        (task,) = read_stream(tmp_path / folder)
        assert (task.name, len(task.test)) == (folder, 4)
        assert not any("ignored" in note for note in task.notes)


def test_an_empty_folder_holds_no_tasks(tmp_path: Path) -> None:
    assert "contains no tasks" in problems(tmp_path)[0][2]
    assert problems(tmp_path / "none") == [("none", None, "no such file or folder")]


def test_reading_data_imports_no_torch() -> None:
    code = "import sys, conpet.data; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
