"""Streams made of labelled data: which labels become a task, what is written, what the command line says."""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conpet.bench.similarity import label_vectors
from conpet.data import Example, Span, Task, TaskStream, read_inputs, read_stream
from conpet.data.benchmarks import read_data
from conpet.data.groups import read_groups
from conpet.data.labelled import LabelledData, LeftOut, PerLabel, left_out
from conpet.data.recipe import StreamRecipe
from conpet.data.stream_writer import write_stream
from conpet.errors import ConfigError, DataError, UnknownNameError
from tests.helpers.cli import QUICK, conpet

ALL = PerLabel()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "data"


def data_of(sizes: Mapping[str, int], **groupings: Mapping[str, tuple[str, ...]]) -> LabelledData:
    """Return data with so many training examples a label, and half as many others."""
    subsets = [
        tuple(
            Example.of_text(f"{subset} input {number} of {label}", label)
            for label, size in sizes.items()
            for number in range(math.ceil(size * share))
        )
        for subset, share in (("train", 1), ("validation", 0.5), ("test", 0.5))
    ]
    return LabelledData("made-up", *subsets, groupings=groupings)


def groups_of(stream: TaskStream) -> list[set[str]]:
    return [set(task.labels) for task in stream]


LETTERS = data_of(dict.fromkeys("abcdefghijk", 4))


def test_rows_of_one_file_may_name_their_subsets(tmp_path: Path) -> None:
    rows = [
        {"text": f"{subset} {number} of {label}", "label": label, "split": subset}
        for label in "abcd"
        for subset, count in (("train", 4), ("dev", 2), ("test", 3))
        for number in range(count)
    ]
    file = tmp_path / "all.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = conpet("stream", "make", file, tmp_path / "made", "--by", "random", "--tasks", 2)
    assert "the rows name their subsets (split or training): 16 train, 8 validation, 12 test" in made.out + made.err
    for task in read_stream(tmp_path / "made"):
        texts = [[example.text.split()[0] for example in subset] for subset in (task.train, task.validation, task.test)]
        assert texts == [["train"] * 8, ["dev"] * 4, ["test"] * 6]


def test_random_tasks_hold_every_label_once_and_are_of_about_one_size() -> None:
    stream = StreamRecipe(by="random", tasks=3).stream_of(LETTERS, ALL)
    assert sorted(label for task in stream for label in task.labels) == list("abcdefghijk")
    assert sorted(len(task.labels) for task in stream) == [3, 4, 4]
    assert [task.name for task in stream] == ["task-1", "task-2", "task-3"]


def test_a_seed_gives_one_stream_and_another_seed_another() -> None:
    first, again, other = (
        StreamRecipe(by="random", tasks=3, seed=seed).stream_of(LETTERS, PerLabel(train=2)) for seed in (1, 1, 2)
    )
    assert first == again
    assert groups_of(first) != groups_of(other)


def test_most_frequent_labels_come_first_and_ties_go_by_name() -> None:
    data = data_of({"rare": 1, "z-tie": 5, "a-tie": 5, "top": 9, "low": 2, "next": 7})
    stream = StreamRecipe(by="frequency", tasks=3).stream_of(data, ALL)
    assert groups_of(stream) == [{"top", "next"}, {"a-tie", "z-tie"}, {"low", "rare"}]


def directions(degrees: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return a vector for each label, of another length each: only the angle counts."""
    return {
        label: (1 + number) * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        for number, (label, angle) in enumerate(degrees.items())
    }


TWINS = directions({"a": 0, "d": 60, "g": 130, "b": 4, "e": 66, "h": 137})


def test_labels_that_are_alike_come_together_or_apart_as_asked() -> None:
    data = data_of(dict.fromkeys(TWINS, 2))
    together = StreamRecipe(by="similar-together", tasks=3).stream_of(data, ALL, vectors=lambda: TWINS)
    assert sorted(map(sorted, groups_of(together))) == [["a", "b"], ["d", "e"], ["g", "h"]]
    apart = StreamRecipe(by="similar-apart", tasks=3).stream_of(data, ALL, vectors=lambda: TWINS)
    assert [len(group) for group in groups_of(apart)] == [2, 2, 2]
    for pair in ({"a", "b"}, {"d", "e"}, {"g", "h"}):
        assert not any(pair <= group for group in groups_of(apart))


def test_labels_along_an_arc_are_cut_and_dealt_along_it() -> None:
    arc = directions({"m": 0, "c": 9, "x": 19, "b": 30, "k": 42, "a": 55, "y": 69, "d": 84})
    data = data_of(dict.fromkeys(arc, 2))
    together = StreamRecipe(by="similar-together", tasks=2).stream_of(data, ALL, vectors=lambda: arc)
    assert sorted(map(sorted, groups_of(together))) == [["a", "d", "k", "y"], ["b", "c", "m", "x"]]
    apart = StreamRecipe(by="similar-apart", tasks=2).stream_of(data, ALL, vectors=lambda: arc)
    assert sorted(map(sorted, groups_of(apart))) == [["a", "b", "c", "d"], ["k", "m", "x", "y"]]


def test_vectors_are_asked_for_only_where_they_decide() -> None:
    def refuse() -> Any:
        raise AssertionError

    StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL, vectors=refuse)
    with pytest.raises(ConfigError, match="11 labels are enough for at most 5 tasks"):
        StreamRecipe(by="similar-apart", tasks=6).stream_of(LETTERS, ALL, vectors=refuse)
    with pytest.raises(ConfigError, match="a vector for each label"):
        StreamRecipe(by="similar-apart", tasks=2).stream_of(LETTERS, ALL)


def test_without_scipy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[bench\]'"):
        StreamRecipe(by="similar-together", tasks=3).stream_of(
            data_of(dict.fromkeys(TWINS, 2)), ALL, vectors=lambda: TWINS
        )


def test_label_vectors_are_means_of_frozen_features() -> None:
    data = data_of({"a": 3, "b": 2})
    vectors = label_vectors(data, "tiny-random")
    alone = [label_vectors(LabelledData("one", (example,)), "tiny-random")["a"] for example in data.train[:3]]
    np.testing.assert_allclose(vectors["a"], sum(alone) / 3, rtol=1e-4, atol=1e-5)
    assert set(vectors) == {"a", "b"}


def test_pieces_make_a_thousand_tasks_of_disjoint_labels_and_inputs() -> None:
    data = read_data("clinc150", [BENCHMARKS])
    recipe = StreamRecipe(by="pieces", tasks=1000, seed=3)
    stream = recipe.stream_of(data, ALL)
    labels = [label for task in stream for label in task.labels]
    assert (len(stream), len(labels), len(set(labels))) == (1000, 2000, 2000)
    origins = {tuple(label.partition("#")[0] for label in task.labels) for task in stream}
    assert all(first != second for first, second in origins)
    assert {origin for pair in origins for origin in pair} == set(data.labels)
    sizes = Counter(example.label for task in stream for example in task.train)
    assert set(sizes.values()) == {7, 8}
    assert sum(sizes.values()) == len({example.input_key for example in data.train})
    assert recipe.stream_of(data, ALL) == stream
    assert StreamRecipe(by="pieces", tasks=1000, seed=4).stream_of(data, ALL) != stream


def test_a_larger_label_is_cut_into_more_pieces_and_no_piece_is_empty() -> None:
    recipe = StreamRecipe(by="pieces", tasks=3, labels_per_task=3)
    stream = recipe.stream_of(data_of({"big": 12, "small": 5, "one": 1}), ALL)
    sizes = Counter(example.label for task in stream for example in task.train)
    assert Counter(label.partition("#")[0] for label in sizes) == {"big": 7, "small": 2}
    assert sorted(sizes.values()) == [1, 1, 2, 2, 2, 2, 2, 2, 3]
    with pytest.raises(ConfigError, match=r"7 tasks of 3 labels need at least 21 training examples.*18"):
        StreamRecipe(by="pieces", tasks=7, labels_per_task=3).stream_of(data_of({"big": 12, "small": 5, "one": 1}), ALL)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"by": "given", "tasks": 2}, "because the groups determine it"),
        ({"by": "random"}, "needs the number of tasks"),
        ({"by": "frequency", "tasks": 6}, "11 labels are enough for at most 5 tasks of two labels, not 6"),
        ({"by": "random", "tasks": 2, "grouping": "paper"}, "the grouping 'paper' needs by 'given'"),
    ],
)
def test_what_contradicts_itself_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamRecipe.parse(recipe).stream_of(LETTERS, ALL)


def test_wrong_groups_are_explained() -> None:
    def given(groups: Mapping[str, tuple[str, ...]]) -> TaskStream:
        return StreamRecipe().stream_of(data_of({"cards": 2, "loans": 2, "taxes": 2}, mine=groups), ALL)

    with pytest.raises(DataError, match=r"label 'loans': is in 'one' and in 'two'"):
        given({"one": ("cards", "loans"), "two": ("loans", "taxes")})
    with pytest.raises(UnknownNameError, match=r"'card' \(did you mean 'cards'\?\)"):
        given({"one": ("card", "loans")})
    with pytest.raises(UnknownNameError, match="'weather'; labels: cards, loans, taxes"):
        given({"one": ("weather", "loans")})
    with pytest.raises(UnknownNameError, match="no grouping 'other'; available: mine"):
        StreamRecipe(grouping="other").stream_of(data_of({"a": 1, "b": 1}, mine={"one": ("a", "b")}), ALL)


def test_groups_are_read_from_lists_and_from_names(tmp_path: Path) -> None:
    listed, named, wrong = (tmp_path / name for name in ("a.json", "b.yaml", "c.yaml"))
    listed.write_text('[["a", "b"], ["c", "d"]]', encoding="utf-8")
    named.write_text("second: [c, 12]\nfirst:\n- a\n- b/c\n", encoding="utf-8")
    assert read_groups(listed) == {"task-1": ("a", "b"), "task-2": ("c", "d")}
    assert list(read_groups(named).items()) == [("second", ("c", "12")), ("first", ("a", "b/c"))]
    for content, message in (
        ("[a, b]", "group 1 must be a list of labels, not 'a'"),
        ("one: [yes, no]", "put it in quotes"),
        ("word", "give a list of lists"),
        ("[a: b: c", "neither YAML nor JSON"),
    ):
        wrong.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_groups(wrong)


def test_a_written_folder_is_the_same_stream_whatever_its_names_and_examples(tmp_path: Path) -> None:
    tokens = ("Ada", "wrote\u2028it", "“für” Byron")
    names = [
        "event/attack",
        "event-attack",
        "../up",
        "LICENSE",
        "licence",
        "Licence",
        ".hidden",
        "12",
        "///",
        "é" * 200,
    ]
    pairs = [(f"{name} {side}", number) for number, name in enumerate(names) for side in ("x", "y")]
    examples = {label: Example.of_mention(tokens, Span(number % 3, 3), label, str(number)) for label, number in pairs}
    tasks = [
        Task(name, (examples[f"{name} x"], Example.of_mention((name, "other"), Span(0, 1), f"{name} y")))
        for name in names
    ]
    relations = [
        Example.of_relation(tokens, Span(0, 1), Span(2, 3), "r1"),
        Example.of_relation(tokens, Span(2, 3), Span(0, 1), "r2"),
    ]
    texts = Task(
        "texts", (Example.of_text(" a\r\nb ", "t/1"), Example.of_text("c", "t/2")), settings={"module": {"rank": 2}}
    )
    stream = TaskStream((*tasks, Task("relations", tuple(relations)), texts))
    folder = write_stream(stream, tmp_path / "out", {"LICENSE": b"free"})
    read = read_stream(folder)
    assert {note.partition(":")[0] for task in read for note in task.notes} <= {
        "the test file is empty",
        "the validation file is empty",
    }
    assert TaskStream(tuple(replace(task, notes=()) for task in read)) == stream
    assert (folder / "LICENSE").read_bytes() == b"free"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len({path.name.casefold() for path in folder.iterdir()}) == len(stream) + 2


def test_nothing_is_written_over_other_content(tmp_path: Path) -> None:
    stream = StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL)
    write_stream(stream, tmp_path)
    assert read_stream(write_stream(stream, tmp_path)) == stream
    with pytest.raises(DataError, match="other data"):
        write_stream(StreamRecipe(by="random", tasks=2, seed=1).stream_of(LETTERS, ALL), tmp_path, {"NOTICE": b""})
    assert read_stream(tmp_path) == stream
    assert not (tmp_path / "NOTICE").exists()


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("foreign", ["notes.txt", "old-task/train.jsonl", "task-1/more.csv", "task-2"])
def test_a_folder_with_anything_else_in_it_is_refused_as_it_is(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("hi", encoding="utf-8")
    with pytest.raises(DataError, match=r"name a new or empty folder(.|\n)*is not part of what would be") as refused:
        write_stream(StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL), tmp_path)
    assert str(tmp_path / foreign.removesuffix("/train.jsonl")) in str(refused.value)
    assert everything_below(tmp_path) == {foreign: b"hi"}


def test_hidden_files_are_no_reason_to_refuse_a_folder(tmp_path: Path) -> None:
    stream = StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL)
    (tmp_path / ".DS_Store").write_bytes(b"")
    write_stream(stream, tmp_path)
    (tmp_path / "task-1" / ".DS_Store").write_bytes(b"")
    assert read_stream(write_stream(stream, tmp_path)) == stream


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_is_no_folder_to_write_to(tmp_path: Path, below: str) -> None:
    file = tmp_path / "cook.csv"
    file.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"cook\.csv is a file; name another folder"):
        write_stream(StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL), file / below)
    assert file.read_text(encoding="utf-8") == "text,label\n"


def test_comments_cannot_break_the_stream(tmp_path: Path) -> None:
    stream = StreamRecipe(by="random", tasks=2).stream_of(LETTERS, ALL)
    assert read_stream(write_stream(stream, tmp_path, about=["of a\nb\u2028c\x07\udce9", "and: {more"])) == stream
    said = (tmp_path / "stream.yaml").read_text(encoding="utf-8").splitlines()[:2]
    assert said == ["# of a b c  ", "# and: {more"]


def test_what_is_left_out_of_a_stream_is_counted() -> None:
    def of(label: str, *texts: str) -> list[Example]:
        return [Example.of_text(text, label) for text in texts]

    groups = {"one": ("a", "b")}
    data = LabelledData(
        "made-up",
        train=(*of("a", "1", "2", "1", "1"), *of("b", "3", "4"), *of("c", "5", "5")),
        validation=(*of("a", "6", "2"), *of("b", "7", "7"), *of("c", "5")),
        test=(*of("a", "8", "1", "2"), *of("b", "3", "3", "9")),
        groupings={"mine": groups},
    )
    stream = StreamRecipe().stream_of(data, ALL)
    assert left_out(data, stream) == {"train": LeftOut(2, 0), "validation": LeftOut(1, 1), "test": LeftOut(1, 3)}
    assert [len(getattr(stream[0], subset)) for subset in ("train", "validation", "test")] == [4, 2, 2]
    fewer = StreamRecipe().stream_of(data, PerLabel(train=1))
    trained = {example.text for example in fewer[0].train}
    held = [text for text in ("1", "2", "3") if text in trained]
    assert left_out(data, fewer, PerLabel(train=1))["test"] == LeftOut(1, len(held))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small `clinc150` of four labels in two groups, with its licence."""
    folder = tmp_path_factory.mktemp("shelf")
    rows = [
        {"text": f"{subset} {number} about {label}", "label": label, "group": "ab" if label in "ab" else "cd"}
        for subset in ("train", "validation", "test")
        for label in "abcd"
        for number in range(6)
    ]
    (folder / "clinc150").mkdir()
    for subset in ("train", "validation", "test"):
        write_gz(folder / "clinc150" / f"{subset}.jsonl.gz", [row for row in rows if row["text"].startswith(subset)])
    write_gz(folder / "clinc150" / "out_of_scope_test.jsonl.gz", [{"text": "what is love"}])
    (folder / "clinc150" / "LICENSE").write_text("as you like", encoding="utf-8")
    return folder


def write_gz(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_the_command_writes_what_the_recipe_says_and_it_can_be_learned(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = conpet(
        "stream", "make", "clinc150", out, "--data-folder", shelf, "--train", 4, "--validation", 2, "--seed", 5
    )
    assert done.code == 0, done.err
    data = read_data("clinc150", [shelf])
    assert read_stream(out) == StreamRecipe(seed=5).stream_of(data, PerLabel(4, 2))
    assert "\n  ab: a, b\n  cd: c, d\n" in done.out
    assert [row.split() for row in done.out.splitlines() if row.startswith(("ab", "cd", "2 tasks"))] == [
        ["ab", "2", "8", "4", "12"],
        ["cd", "2", "8", "4", "12"],
        ["2", "tasks", "4", "16", "8", "24"],
    ]
    assert (out / "LICENSE").read_text(encoding="utf-8") == "as you like"
    assert [example.text for example in read_inputs(out / "out_of_scope.jsonl")] == ["what is love"]
    assert conpet("init", tmp_path / "ws", *QUICK).code == 0
    learned = conpet("learn", tmp_path / "ws", out)
    assert learned.code == 0, learned.err


def test_the_folder_says_how_it_was_made_and_the_same_command_may_be_repeated(shelf: Path, tmp_path: Path) -> None:
    source = shelf / "banking77"
    source.mkdir()
    rows = [{"text": f"{label} {number}", "label": label} for label in "abcd" for number in range(6)]
    for subset, shared in (("train", rows[6:8]), ("validation", []), ("test", rows[6:8])):
        write_gz(source / f"{subset}.jsonl.gz", [{**row, "text": f"{row['text']} {subset}"} for row in rows] + shared)
    (source / "SOURCE.md").write_text("26 training rows", encoding="utf-8")
    command = ("stream", "make", "banking77", tmp_path / "out", "--data-folder", shelf, "--by", "random", "--tasks", 2)
    done = conpet(*command, "--test", 7)
    assert done.code == 0, done.err
    written = everything_below(tmp_path / "out")
    assert written["stream.yaml"].decode().splitlines()[:5] == [
        "# Made by conpet stream make from the data set banking77.",
        "# Recipe: by random, tasks 2, seed 0.",
        "# Most examples per label: train all, validation all, test 7.",
        "# Counts in SOURCE.md refer to the whole data set, not to this stream.",
        "# The order in which the tasks are learned.",
    ]
    assert "note: held-out inputs that are also training examples are left out: 2 test; the" in done.err
    again = conpet(*command, "--test", 7)
    assert (again.code, everything_below(tmp_path / "out")) == (0, written)
    other = conpet(*command, "--test", 5)
    assert other.code == 1
    assert "stream.yaml: differs from what would be written" in other.err


def test_a_stream_of_ones_own_groups_names_their_file(shelf: Path, tmp_path: Path) -> None:
    groups = tmp_path / "groups.json"
    groups.write_text('[["a", "d"], ["b", "c"]]', encoding="utf-8")
    done = conpet("stream", "make", "clinc150", tmp_path / "my out", "--data-folder", shelf, "--groups", groups)
    assert done.code == 0, done.err
    assert f"conpet learn WORKSPACE '{tmp_path / 'my out'}'\n" in done.out
    said = (tmp_path / "my out" / "stream.yaml").read_text(encoding="utf-8")
    assert "# Recipe: by given, grouping groups.json, seed 0.\n" in said
    assert "SOURCE" not in said


def test_the_command_compares_labels_by_a_backbone(shelf: Path, tmp_path: Path) -> None:
    options = ("--data-folder", shelf, "--tasks", 2, "--by", "similar-apart", "--backbone", "tiny-random")
    done = conpet("stream", "make", "clinc150", tmp_path / "out", *options)
    assert done.code == 0, done.err
    data = read_data("clinc150", [shelf])
    recipe = StreamRecipe(by="similar-apart", tasks=2)
    assert read_stream(tmp_path / "out") == recipe.stream_of(
        data, ALL, vectors=lambda: label_vectors(data, "tiny-random")
    )


def test_the_command_says_what_is_left_out_or_less_than_asked_for(shelf: Path, tmp_path: Path) -> None:
    groups = tmp_path / "groups.yaml"
    groups.write_text("mine/too: [d, a]\n", encoding="utf-8")
    done = conpet(
        "stream", "make", "clinc150", tmp_path / "out", "--data-folder", shelf, "--groups", groups, "--test", 7
    )
    assert done.code == 0, done.err
    assert [(task.name, task.labels) for task in read_stream(tmp_path / "out")] == [("mine/too", ("a", "d"))]
    assert "note: 2 of 4 labels are in no task: b, c\n" in done.err
    assert "note: 2 of 2 labels have fewer than 7 test examples" in done.err


def test_the_command_names_labels_without_a_test_example(tmp_path: Path) -> None:
    rows = [f"{label} {number},{label}" for label in "abc" for number in range(5)]
    lone = [f"once {number},lone {number:02}" for number in range(12)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows, *lone]), encoding="utf-8")
    done = conpet("stream", "make", tmp_path / "mine.csv", tmp_path / "out", "--by", "random", "--tasks", 2)
    assert done.code == 0, done.err
    assert "note: 12 of 15 labels have no test example, so accuracy does not cover them: lone 00, " in done.err
    assert "lone 09 and 2 more\n" in done.err


def test_the_command_reads_files_as_learn_does(tmp_path: Path) -> None:
    rows = [f"{label};{label} {number}" for label in ("café", "b", "c", "d") for number in range(5)]
    (tmp_path / "mine.csv").write_bytes("\n".join(["Art;Satz", *rows]).encode("cp1252"))
    options = ("--text-column", "satz", "--label-column", "art", "--encoding", "cp1252", "--by", "random", "--tasks", 2)
    done = conpet("stream", "make", tmp_path / "mine.csv", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert "note: mine.csv: cells are separated by semicolons" in done.err
    assert sorted(label for task in read_stream(tmp_path / "out") for label in task.labels) == ["b", "c", "café", "d"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "random", "--tasks", 3), "4 labels are enough for at most 2 tasks of two labels, not 3"),
        (("--by", "random"), "by 'random' needs the number of tasks"),
        (("--tasks", 2), "because the groups determine it"),
        (
            ("--by", "randm", "--tasks", 2),
            "--by randm is not a way to make tasks; available: given, random, frequency, similar",
        ),
        (("--by", "pieces", "--tasks", 2), "--by pieces is not a way to make tasks; available: given"),
        (("--grouping", "paper"), "no grouping 'paper'; available: groups"),
        (("--groups", "GROUPS", "--by", "random", "--tasks", 2), "and --by random both define the tasks"),
        (("--groups", "GROUPS", "--grouping", "groups"), "and --grouping both define the tasks"),
        (("--groups", "GROUPS"), "'e'"),
        (("--groups", "MISSING"), "none: No such file or directory; name a YAML or JSON file"),
    ],
)
def test_the_command_refuses_what_cannot_be_and_writes_nothing(
    shelf: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    groups = tmp_path / "groups.json"
    groups.write_text('[["a", "b"], ["c", "e"]]', encoding="utf-8")
    places = {"GROUPS": groups, "MISSING": tmp_path / "none"}
    given = [places.get(str(option), option) for option in options]
    done = conpet("stream", "make", "clinc150", tmp_path / "out", "--data-folder", shelf, *given)
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / "out").exists()
