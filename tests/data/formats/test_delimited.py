"""CSV, TSV and other tables of text: delimiters, quotes, headers, encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.data import count_inputs, read_inputs
from conpet.errors import DataError
from tests.helpers.reading import SAMPLES, inputs, labelled, notes, problems, put

ROWS = [("opens, when?", "hours"), ("renew it", "loan")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", 'text,label\n"opens, when?",hours\nrenew it,loan\n', []),
        ("t.csv", 'Text , LABEL\r\n"opens, when?", hours\r\nrenew it,loan \r\n', []),
        ("t.csv", "text;label\nopens, when?;hours\nrenew it;loan\n", ["cells are separated by semicolons"]),
        ("t.csv", "sep=|\ntext|label\nopens, when?|hours\nrenew it|loan\n", ["cells are separated by vertical bars"]),
        ("t.csv", "label\ttext\nhours\topens, when?\nloan\trenew it\n", ["cells are separated by tabs"]),
        ("t.tsv", "text\tlabel\nopens, when?\thours\nrenew it\tloan\n", []),
        ("t.tab", 'text\tlabel\r\n"opens, when?"\thours\r\nrenew it\tloan\r\n', []),
        ("t.tsv", '"text"\t"label"\n"opens, when?"\t"hours"\n"renew it"\t"loan"\n', []),
        ("t.tsv", 'text,label\n"opens, when?",hours\nrenew it,loan\n', ["cells are separated by commas"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_headers_and_encodings(
    tmp_path: Path, name: str, content: str, said: list[str], encoding: str
) -> None:
    path = put(tmp_path / name, content, encoding)
    assert labelled(path) == ROWS
    assert notes(path) == said
    assert count_inputs(path) == 2


def test_quotes_that_enclose_no_cell_are_text(tmp_path: Path) -> None:
    path = put(tmp_path / "t.tsv", 'label\ttext\na\t"Never," she said\nb\tHe said "now"\nb\t"closed."\n')
    assert inputs(path) == ['"Never," she said', 'He said "now"', '"closed."']
    path = put(tmp_path / "u.tsv", 'label\ttext\na\t"two\nlines, ""quoted"""\nb\tplain\n')
    assert inputs(path) == ['two\nlines, "quoted"', "plain"]
    assert count_inputs(path) == 2
    texts = [text for text, _ in labelled(SAMPLES / "sib200_de.tsv")]
    assert [text[:8] for text in texts] == ["Mutation", "Die Atom", "Der Atom", '"Premier', '"Tommy D']


def test_a_quote_that_csv_does_not_allow_is_explained(tmp_path: Path) -> None:
    ((row, said),) = problems(put(tmp_path / "t.csv", 'text,label\n"one" more,a\n'))
    assert row == 2
    assert said.endswith("a quote inside a quoted cell must be doubled; reading stopped here")


def test_columns_are_named_by_the_user_or_by_common_names(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "No,Utterance,Intent\n1,one,a\n2,two,b\n")
    assert labelled(path) == [("one", "a"), ("two", "b")]
    assert notes(path) == [
        "column 'Utterance' is read as text (--text-column names another)",
        "column 'Intent' is read as label (--label-column names another)",
    ]
    path = put(tmp_path / "u.csv", "frage,wort,text\n1,a,x\n2,b,y\n")
    assert labelled(path, columns={"text": "Frage", "label": "wort"}) == [("1", "a"), ("2", "b")]
    assert [one.id for one in read_inputs(path, columns={"id": "frage"})] == ["1", "2"]


def test_a_file_without_a_header_is_read_by_positions(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "a,one\nb,two\n")
    assert labelled(path, columns={"text": "2", "label": "1"}) == [("one", "a"), ("two", "b")]
    assert problems(path)[0][1].endswith("or its number if the file has no header: --text-column 1")


@pytest.mark.parametrize(
    ("header", "columns", "reason"),
    [
        ("a,b", {}, "no column named text or tokens; columns: 'a', 'b'. Name the one to read: --text-column NAME"),
        ("query,sentence", {}, "columns: 'query', 'sentence'. Likely: 'query' or 'sentence'. Name the one"),
        ("text,intent,class", {}, "no column named label; columns: 'text', 'intent', 'class'. Likely: 'intent' or"),
        ("text,other", {}, "Name the one to read: --label-column NAME"),
        ("text,label", {"text": "txet"}, "no column 'txet', given for text (did you mean 'text'?); columns: 'text'"),
        ("Text,TEXT,label", {}, "the columns name text more than once: 'Text', 'TEXT'"),
    ],
)
def test_unclear_columns_are_one_problem_that_names_the_option(
    tmp_path: Path, header: str, columns: dict[str, str], reason: str
) -> None:
    ((row, said),) = problems(put(tmp_path / "t.csv", f"{header}\n1,2,3\n"), columns=columns)
    assert row == 1
    assert reason in said


@pytest.mark.parametrize("content", ["one,two\na,b\n", "text,text\na,b\n", b"t\xe9xt,label\na,b\n"])
def test_a_header_that_cannot_be_used_is_no_row_to_leave_out(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(DataError, match="row 1: "):
        list(read_inputs(put(tmp_path / "t.csv", content), on_error="report"))


def test_labels_may_be_unclear_where_none_are_needed(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "text,intent,class\none,a,b\n")
    assert inputs(path) == ["one"]


def test_text_in_another_encoding_is_named_and_can_be_read(tmp_path: Path) -> None:
    for encoding, text in (("cp1252", "Où est le café?"), ("cp1251", "где мой кредит"), ("cp932", "どこですか")):
        path = put(tmp_path / "t.csv", f"text,label\n{text},a\n{text} 2,b\n", encoding)
        assert problems(path)[0] == (
            2,
            f"is not UTF-8 text; it looks like {encoding}: save it as UTF-8, or read it with --encoding {encoding}",
        )
        assert labelled(path, encoding=encoding) == [(text, "a"), (f"{text} 2", "b")]
    assert "is not shift_jis text" in problems(put(tmp_path / "t.csv", b"text\n\x81\n"), encoding="shift_jis")[0][1]


def test_lines_in_cells_and_columns_with_other_content() -> None:
    first = inputs(SAMPLES / "tasteset.csv", columns={"text": "ingredients"})[0]
    assert first.splitlines()[:2] == ["5 ounces rum", "4 ounces triple sec"]
    assert "'ingredients', 'ingredients_entities'" in problems(SAMPLES / "tasteset.csv")[0][1]
