"""The data sets that come with conpet, those of intents, one's own data, and the list of them all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from conpet.data.benchmarks import DATA_SETS, data_folders, find_data, read_data
from conpet.data.benchmarks.catalog import READERS
from conpet.data.labelled import stream_of
from conpet.errors import DataError, UnknownNameError
from tests.helpers.cli import conpet, write_rows, write_stream

SHIPPED = {
    "clinc150": ((15_000, 3_000, 4_500), 150, ["groups"], 1_000),
    "banking77": ((9_000, 1_003, 3_080), 77, [], 0),
    "hwu64": ((8_942, 1_018, 1_076), 64, ["groups"], 0),
    "sib200_ja": ((701, 99, 204), 7, [], 0),
    "semeval2010_task8": ((5_931, 658, 2_262), 17, ["groups"], 0),
    "fewrel80": ((9_979, 1_426, 2_855), 80, ["paper"], 0),
    "fewnerd53": ((27_891, 2_363, 6_536), 53, ["paper", "groups"], 0),
}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


class TestShipped:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_is_whole(self, name: str) -> None:
        data = read_data(name)
        rows, labels, groupings, outside = SHIPPED[name]
        assert (len(data.train), len(data.validation), len(data.test)) == rows
        assert len(data.labels) == labels == DATA_SETS[name].labels
        assert list(data.groupings) == groupings
        assert len(data.out_of_scope) == outside
        assert not any("was not read" in note for note in data.notes)
        assert {one.label for one in data.out_of_scope} <= {None}
        assert {one.kind for one in data.train} == {DATA_SETS[name].kind}

    def test_groups_are_those_published(self) -> None:
        assert [len(labels) for labels in read_data("clinc150").grouping().values()] == [15] * 10
        assert sorted(map(len, read_data("semeval2010_task8").grouping().values())) == [2] * 7 + [3]
        assert [len(labels) for labels in read_data("fewrel80").grouping("paper").values()] == [8] * 10
        assert sum(len(labels) for labels in read_data("fewnerd53").grouping("paper").values()) == 53

    @pytest.mark.parametrize("name", ["clinc150", "hwu64", "fewrel80", "semeval2010_task8", "fewnerd53"])
    def test_no_held_out_input_of_a_stream_was_trained_on(self, name: str) -> None:
        data = read_data(name)
        stream = stream_of(data, data.grouping())
        trained = {one.input_key for task in stream for one in task.train}
        held = {one.input_key for task in stream for one in task.validation + task.test}
        assert not trained & held
        assert {label for task in stream for label in task.labels} == set(data.labels)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_source_and_licence_lie_beside_it(self, name: str) -> None:
        folder = find_data(name)
        assert folder is not None
        assert (folder / "LICENSE").stat().st_size > 1_000
        assert DATA_SETS[name].licence in (folder / "SOURCE.md").read_text(encoding="utf-8")

    def test_a_cut_off_file_is_named(self, tmp_path: Path) -> None:
        folder = find_data("banking77")
        assert folder is not None
        for file in folder.glob("*.gz"):
            (tmp_path / "banking77").mkdir(exist_ok=True)
            (tmp_path / "banking77" / file.name).write_bytes(
                file.read_bytes()[: 5_000 if "test" in file.name else None]
            )
        with pytest.raises(DataError, match=r"test\.jsonl\.gz: cannot be read: Compressed file ended"):
            read_data("banking77", [tmp_path])


CLINC = {
    "train": [["pay my bill", "pay_bill"], ["translate hi", "translate"]],
    "val": [["pay it", "pay_bill"]],
    "test": [["say hi in thai", "translate"]],
    "oos_train": [["who am i", "oos"]],
    "oos_val": [],
    "oos_test": [["how tall is it", "oos"]],
}


class TestIntents:
    def test_clinc150_from_its_authors_files(self, tmp_path: Path) -> None:
        put(tmp_path / "clinc150/data_full.json", CLINC)
        put(tmp_path / "clinc150/domains.json", {"banking": ["pay_bill", "transfer"], "travel": ["translate"]})
        data = read_data("clinc150", [tmp_path])
        assert [(one.text, one.label) for one in data.train] == [tuple(row) for row in CLINC["train"]]
        assert [one.label for one in data.validation + data.test] == ["pay_bill", "translate"]
        assert [(one.text, one.label) for one in data.out_of_scope] == [("how tall is it", None)]
        assert data.grouping() == {"banking": ("pay_bill",), "travel": ("translate",)}
        assert "labels of groups without a training example: transfer" in data.notes
        assert "1 inputs of oos_train were not read" in data.notes

    def test_clinc150_without_domains(self, tmp_path: Path) -> None:
        put(tmp_path / "clinc150/data_full.json", CLINC)
        data = read_data("clinc150", [tmp_path])
        assert data.groupings == {}
        assert any("domains.json" in note for note in data.notes)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"train": CLINC["train"]}, "missing field 'val'; fields: train"),
            (CLINC | {"val": [["pay it"]]}, r"val, entry 0 \(from 0\): expected \[text, intent\], found a list of 1"),
            (CLINC["train"], "expected an object"),
            (json.dumps(CLINC)[:40], "is the file complete"),
        ],
    )
    def test_clinc150_says_what_is_wrong(self, tmp_path: Path, content: Any, said: str) -> None:
        put(tmp_path / "clinc150/data_full.json", content)
        with pytest.raises(DataError, match=said):
            read_data("clinc150", [tmp_path])

    def test_banking77_from_its_authors_files(self, tmp_path: Path) -> None:
        rows = [f'"Where is {label}, {at}?",{label}\n' for at in range(20) for label in ("card_arrival", "lost_card")]
        put(tmp_path / "banking77/train.csv", "text,category\n" + "".join(rows))
        put(tmp_path / "banking77/test.csv", "text,category\nLost it,lost_card\n")
        data = read_data("banking77", [tmp_path])
        assert data.train[0].text == "Where is card_arrival, 0?"
        assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 1)

    def test_banking77_says_what_is_wrong(self, tmp_path: Path) -> None:
        put(tmp_path / "banking77/train.csv", "text,label\nLost it,lost_card\n")
        put(tmp_path / "banking77/test.csv", "text,category\nLost it,\n")
        with pytest.raises(DataError) as caught:
            read_data("banking77", [tmp_path])
        assert "train.csv: row 1: no column 'category', given for label; columns: 'text', 'label'" in str(caught.value)
        assert "test.csv: row 2: missing category" in str(caught.value)


class TestOwnData:
    def test_a_stream_folder_keeps_its_tasks(self, tmp_path: Path) -> None:
        folder = write_stream(tmp_path / "stream")
        data = read_data(str(folder))
        assert data.name == "stream"
        assert list(data.groupings) == ["tasks"]
        assert [task.labels for task in stream_of(data, data.grouping())] == list(data.grouping().values())

    def test_a_file_is_divided(self, tmp_path: Path) -> None:
        rows = [
            {"text": f"{label} {at}", "label": label, "group": label[0]} for at in range(10) for label in ("ab", "ac")
        ]
        data = read_data(str(write_rows(tmp_path / "mine.jsonl", rows)))
        assert data.name == "mine"
        assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
        assert data.grouping() == {"a": ("ab", "ac")}
        assert len(data.notes) == 2

    def test_a_folder_with_subsets(self, tmp_path: Path) -> None:
        for subset in ("train", "dev", "test"):
            write_rows(tmp_path / f"mine/{subset}.jsonl", [{"text": f"{subset} {one}", "label": one} for one in "ab"])
        data = read_data(str(tmp_path / "mine"))
        assert [len(part) for part in (data.train, data.validation, data.test)] == [2, 2, 2]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"text": "a"}, "row 2: missing label"),
            ({"label": "a"}, "row 2: missing text"),
            (
                {"text": "b", "label": "a", "group": "y"},
                "row 2: label 'a' is in group 'x' in an earlier row, here in 'y'",
            ),
            ({"tokens": ["a"], "mention": [0, 2], "label": "a"}, "row 2: mention span 0:2 is outside the 1 tokens"),
        ],
    )
    def test_says_which_row_is_wrong(self, tmp_path: Path, row: dict[str, Any], said: str) -> None:
        file = write_rows(tmp_path / "mine.jsonl", [{"text": "a", "label": "a", "group": "x"}, row])
        with pytest.raises(DataError, match=said):
            read_data(str(file))

    def test_an_unknown_name_lists_what_there_is(self) -> None:
        with pytest.raises(
            UnknownNameError,
            match=r"no data set, file or folder 'fewrel81'.* \(did you mean 'fewrel80'\?\); data sets: clinc150, ",
        ):
            read_data("fewrel81")

    def test_a_path_is_seen_from_the_folders_given_and_a_wrong_one_says_which(self, tmp_path: Path) -> None:
        rows = [{"text": f"{label} {at}", "label": label} for at in range(10) for label in "ab"]
        write_rows(tmp_path / "shelf/mine.jsonl", rows)
        assert read_data("mine.jsonl", [tmp_path, tmp_path / "shelf"]).labels == ("a", "b")
        with pytest.raises(UnknownNameError) as caught:
            read_data("none/mine.jsonl", [tmp_path, tmp_path / "shelf"])
        assert f"in {tmp_path} or {tmp_path / 'shelf'} or {Path.cwd()};" in str(caught.value)


def test_every_data_set_has_a_reader() -> None:
    assert set(READERS) == set(DATA_SETS)
    assert all(callable(READERS[name]) for name in READERS)


def test_folders_given_come_before_those_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONPET_DATA", os.pathsep.join([str(tmp_path / "b"), "", str(tmp_path / "c")]))
    *named, own = data_folders([tmp_path / "a"])
    assert named == [tmp_path / one for one in "abc"]
    assert own.name == "data"
    for one in "cb":
        put(tmp_path / one / "tacred/train.json", [])
    assert find_data("tacred") == tmp_path / "b/tacred"


class TestList:
    def test_says_what_is_there_and_where_to_get_the_rest(self, tmp_path: Path) -> None:
        put(tmp_path / "tacred/train.json", [])
        done = conpet("bench", "data", "list", "--data-folder", tmp_path)
        assert done.code == 0
        rows = [line for line in done.out.split("\n\n")[0].splitlines() if not line.startswith(" ")]
        table = {line.split()[0]: line.rstrip().rsplit(maxsplit=1)[1] for line in rows}
        states = {name: table[name] for name in ("clinc150", "fewnerd53", "tacred", "ace2005")}
        assert states == {"clinc150": "present", "fewnerd53": "present", "tacred": "incomplete", "ace2005": "missing"}
        assert f"tacred: {tmp_path / 'tacred'} lacks dev.json, test.json; get it from https://catalog.ldc" in done.out
        assert "their content is checked when they are read" in done.out
        assert (
            f"fewrel: get it from https://github.com/thunlp/FewRel; put these files into {tmp_path / 'fewrel'}: train"
            in done.out
        )

    def test_as_json(self, tmp_path: Path) -> None:
        put(tmp_path / "tacred/train.json", [])
        rows = {row["name"]: row for row in conpet("bench", "data", "list", "--data-folder", tmp_path, "--json").json}
        assert list(rows) == list(DATA_SETS)
        assert (rows["banking77"]["there"], rows["banking77"]["missing"]) == (True, [])
        assert rows["tacred"]["missing"] == ["dev.json", "test.json"]
        assert rows["tacred"]["path"] == str(tmp_path / "tacred")
        assert (rows["bbn"]["path"], rows["bbn"]["labels"], rows["bbn"]["kind"]) == (None, 46, "typing")

    def test_a_folder_that_is_not_there_is_no_place_to_look_in(self, tmp_path: Path) -> None:
        done = conpet("bench", "data", "list", "--data-folder", tmp_path / "nosuch")
        assert done.code == 1
        assert f"--data-folder {tmp_path / 'nosuch'}: no such folder" in done.err
