"""Excel workbooks."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from conpet.data import count_inputs, read_inputs
from conpet.errors import ConfigError, DataError
from tests.helpers.reading import labelled, notes, problems, put, row_numbers


def workbook(path: Path, *rows: list[Any], others: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "Data"
    for row in rows:
        book.active.append(row)
    for name in others:
        book.create_sheet(name)
    book.save(path)
    return path


def test_the_first_sheet_is_read(tmp_path: Path) -> None:
    rows = [
        [None, "ID", "Text ", "LABEL"],
        [None, 7, "one", 1],
        [],
        ["x", 8.5, 42, "b "],
        [None, "n", datetime(2026, 5, 1), True],
    ]
    path = workbook(tmp_path / "t.xlsx", [], *rows, [None, None, " "], others=("Notes",))
    assert labelled(path) == [("one", "1"), ("42", "b"), ("2026-05-01", "TRUE")]
    assert [one.id for one in read_inputs(path)] == [7, 8.5, "n"]
    assert row_numbers(path) == [3, 5, 6]
    assert notes(path) == ["only the sheet 'Data' is read; not read: 'Notes' (--sheet names another)"]
    assert count_inputs(path) == 3


def test_empty_sheets_before_the_data_are_passed_over(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", others=("Rows", "Notes"))
    book = openpyxl.load_workbook(path)
    for row in (["text", "label"], ["one", "a"], ["two", "b"]):
        book["Rows"].append(row)
    book.save(path)
    assert labelled(path) == [("one", "a"), ("two", "b")]
    (told,) = notes(path)
    assert "only the sheet 'Rows' is read, the first that is not empty; not read: 'Data', 'Notes'" in told


def test_the_sheet_that_is_named_is_read_and_otherwise_the_only_one_that_fits(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", ["Prepared by Ann"], others=("Rows", "More"))
    book = openpyxl.load_workbook(path)
    for row in (["text", "label"], ["one", "a"], ["two", "b"]):
        book["Rows"].append(row)
    book.save(path)
    assert labelled(path) == [("one", "a"), ("two", "b")]
    assert "only the sheet 'Rows' is read, the only one with the columns needed" in notes(path)[0]
    for row in (["text", "label"], ["three", "c"]):
        book["More"].append(row)
    book.save(path)
    assert "no column named text" in problems(path)[0][1]  # two would fit: nobody guesses
    for sheet in ("More", "3", 3):
        assert [(one.text, one.label) for one in read_inputs(path, sheet=sheet)] == [("three", "c")]
    with pytest.raises(DataError, match="has no sheet '4'; sheets: 'Data', 'Rows', 'More'"):
        list(read_inputs(path, sheet="4"))


def test_a_sheet_without_a_header_is_read_by_positions(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", ["a", "one"], ["b", "two"])
    assert labelled(path, columns={"label": "1", "text": "2"}) == [("one", "a"), ("two", "b")]


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, reason in (
        (b"no zip", "is no Excel workbook (.xlsx); if it is a text file"),
        (b"", "is empty; expected a header"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"more", "is an old Excel workbook (.xls)"),
    ):
        assert reason in problems(put(tmp_path / "t.xlsx", content))[0][1]
    assert "the sheet 'Data' is empty; expected a header" in problems(workbook(tmp_path / "v.xlsx"))[0][1]
    assert "columns: 'a'" in problems(workbook(tmp_path / "u.xlsx", ["a"], ["b"]))[0][1]
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[excel\]'"):
        problems(tmp_path / "u.xlsx")
