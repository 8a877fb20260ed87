"""Messages of the library are said in the language of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conpet.dashboard.messages import language
from conpet.dashboard.phrases import said
from conpet.data import Example
from conpet.data.quality.examination import examine
from conpet.data.quality.loading import Known, load_data
from conpet.data.quality.rows import Row
from conpet.problem_details import of_a_request
from conpet.store.chain import breaks

ENGLISH = re.compile(r"\b(?:the|of|and|is|are|has|with|by|for|not|row|label|example)s?\b")
EIGHT = "".join(f"how do i pay bill number {number},pay\n" for number in range(8))
FILES = {
    "empty.csv": "",
    "header.csv": "text,label\n",
    "columns.csv": "question,answer\na,b\n",
    "program.exe": "MZ",
    "workbook.xlsx": "PK",
    "shift.csv": "text,label\nカードを失くした,紛失\n暗証番号を忘れた,番号\n",
    "blank.csv": "text,label\n,x\nhello,\na,x\nb,y\n",
    "cells.csv": "text,label\na,b,c\nd,e\nf,g\n",
    "half.json": "{",
    "half.jsonl": '{"text": "a"\n{"text": "b", "label": "x"}\n',
    "one.csv": "text,label\na,only\nb,only\n",
    "values.jsonl": '{"text":"a","label":["x","y"]}\n{"text":"b","label":3.5}\n{"text":5,"label":"y"}\n',
    "plain.txt": "hello there\n",
    "copies.csv": "text,label,split\nsame text,x,train\nsame text,y,train\nsame text,x,test\nother text,x,train\n"
    "other text,x,train\n Another  text here,y,train\nanother text here!,x,train\nanother text here,z,test\n",
    "letters.csv": "text,label\na\u200bb,x\nca\u0301fe,X\nﾊﾟｿｺﾝ,1\nwrite to me@example.org or +49 30 1234567,2\n"
    "\ufffd\ufffd,2\n",
    "languages.csv": f"text,label\n{EIGHT}как заплатить за это,other\n"
    "ich habe die karte nicht und der preis ist mir zu,other\n",
}


def findings(file: Path) -> list[str]:
    stored = [Row("old 'task'", "train", "the workspace", 3, Example.of_text("same text", label="x"), stored=True)]
    data, _ = load_data([file], name="task", known=Known({"x": "old 'task'"}, stored, mode=None))
    return [of_a_request(finding.message) for finding in examine(data, None).findings if finding.code != "known-labels"]


@pytest.mark.parametrize("name", FILES)
def test_what_the_check_of_data_finds_is_said_in_japanese(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="cp932" if name == "shift.csv" else "utf-8")
    found = findings(file)
    assert found
    for message in found:
        shown = said(language("ja"), message)
        assert shown is not None, message
        assert re.search(r"[ぁ-んァ-ン]", shown), message
        assert not ENGLISH.search(re.sub(r"「[^」]*」|（[^）]*）|：.*", "", shown)), shown
        assert said(language("en"), message)


@pytest.mark.parametrize(
    ("message", "japanese"),
    [
        ("label 'it\\'s' has no training example", "ラベル「it's」の学習例がありません。"),
        ("contains 1 e-mail address and 2 IP addresses", "メールアドレス 1 件、IP アドレス 2 件が含まれています。"),
        ("is a copy of row 1,200 of a.csv", "a.csv の 1,200 行目と同じ内容です。"),
        ("event 4: was changed after it was recorded", "変更 4：記録された後に書き換えられています。"),
        ("action 2: is missing", "操作 2：記録がありません。"),
    ],
)
def test_names_and_phrases_in_phrases_are_said(message: str, japanese: str) -> None:
    assert said(language("ja"), message) == japanese
    assert said(language("en"), message) == message


def test_what_commands_advise_is_said_in_other_words_and_the_unknown_not_at_all() -> None:
    given = "is not UTF-8 text; it looks like cp932: save it as UTF-8, or add `charset=cp932` to the content type"
    shown = said(language("en"), given)
    assert shown == (
        "is not UTF-8 text, but probably cp932: choose it under “If the file is not read rightly”, or save the file as "
        "UTF-8 (in Excel: “CSV UTF-8”)"
    )
    assert said(language("ja"), "something new and strange happened") is None
    assert said(language("en"), "something new and strange happened") == "something new and strange happened"


def test_a_broken_history_is_said_in_japanese() -> None:
    events = [{"id": 2, "digest": "x"}, {"id": 1, "digest": "y"}, {"id": 7, "digest": "z"}]
    assert all(said(language("ja"), str(one)) for one in breaks(events))
