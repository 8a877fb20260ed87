"""Parquet and Arrow files, and folders of Hugging Face `datasets`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conpet.data import read_inputs, read_stream, read_task
from conpet.errors import ConfigError
from tests.helpers.reading import labelled, notes, problems, put

CLASSES = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
TABLE = {"text": ["one", "two", "three"], "label": [1, 0, 1]}
FOUND = [("one", "yes"), ("two", "no"), ("three", "yes")]


def table(features: dict[str, Any] | None = None, **columns: list[Any]) -> pa.Table:
    found = pa.table(columns or TABLE)
    described = json.dumps({"info": {"features": features}}).encode()
    return found.replace_schema_metadata({b"huggingface": described}) if features else found


def save(folder: Path, **columns: list[Any]) -> Path:
    """Write what `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    whole = table(**columns)
    parts = [whole.slice(0, 2), whole.slice(2)]
    files = [f"data-{at:05}-of-00002.arrow" for at in range(2)]
    for name, part in zip(files, parts, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, part.schema) as writer:
            writer.write_table(part)
    put(folder / "state.json", json.dumps({"_data_files": [{"filename": name} for name in files], "_split": None}))
    put(folder / "dataset_info.json", json.dumps({"features": CLASSES}))
    return folder


def test_a_saved_data_set_has_the_names_of_its_classes(tmp_path: Path) -> None:
    folder = save(tmp_path / "answers")
    assert labelled(folder) == FOUND
    assert read_task(folder, all_rows=True).name == "answers"
    assert notes(folder) == ["the names of class labels are used for the numbers in label"]
    assert [task.name for task in read_stream(tmp_path, all_rows=True)] == ["answers"]


def test_a_saved_dictionary_of_data_sets_is_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    save(folder / "train")
    save(folder / "validation", text=["four", "five", "six"], label=[0, 1, -1])
    save(folder / "unsupervised", text=["seven"], label=[-1])
    put(folder / "dataset_dict.json", '{"splits": ["train", "validation", "unsupervised"]}')
    with pytest.raises(ValueError, match="row 3: missing label"):
        read_stream(folder)
    save(folder / "test", text=["four", "five"], label=[0, 1])
    put(folder / "dataset_dict.json", '{"splits": ["train", "test", "unsupervised"]}')
    (task,) = read_stream(folder)
    assert (task.name, task.labels, len(task.test)) == ("answers", ("no", "yes"), 2)
    assert "unsupervised was ignored: it is not named train, validation or test" in task.notes


@pytest.mark.parametrize("form", ["stream", "file", "parquet"])
def test_single_files_have_the_names_of_their_classes(tmp_path: Path, form: str) -> None:
    path, described = tmp_path / ("t.parquet" if form == "parquet" else "t.arrow"), table(CLASSES)
    if form == "parquet":
        pq.write_table(described, path)
    else:
        opened = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opened(sink, described.schema) as writer:
            writer.write_table(described)
    assert labelled(path) == FOUND


def test_ids_of_any_type_are_kept(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two"], "ID": [7, 8]}), tmp_path / "t.parquet")
    assert [one.id for one in read_inputs(tmp_path / "t.parquet")] == [7, 8]


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "answers")
    put(folder / "data-00001-of-00002.arrow", b"damaged")
    assert problems(folder)[0][1].startswith("data-00001-of-00002.arrow: not a readable Arrow file")
    put(folder / "state.json", '{"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}')
    assert "call flatten_indices() and save the data set again" in problems(folder)[0][1]
    put(folder / "state.json", "[]")
    assert "state.json is not that of a saved data set" in problems(folder)[0][1]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[parquet\]'"):
        problems(put(tmp_path / "t.arrow", b""))
