"""`conpet data check`, and what `learn` checks, mends and foretells."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from conpet.cli import main
from conpet.store import Store
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream

HOURS = ["when does it open", "opening times please", "until when today", "are you open on monday"]
RENEW = ["renew my loan", "extend this loan by a week", "keep the book longer", "prolong my books"]


def rows(hours: str = "hours", renew: str = "renew") -> list[dict[str, Any]]:
    return [*({"text": text, "label": hours} for text in HOURS), *({"text": text, "label": renew} for text in RENEW)]


def leaking(folder: Path) -> Path:
    """Write a task that trains on a test input of the first task of `STREAM`."""
    old = STREAM[0]
    write_rows(folder / "train.jsonl", [*rows(), {"text": old.test[1].text, "label": "hours"}])
    write_rows(
        folder / "test.jsonl", [{"text": "open at nine?", "label": "hours"}, {"text": "renew", "label": "renew"}]
    )
    return folder


def test_a_clean_file_passes_and_a_leak_does_not(tmp_path: Path) -> None:
    clean = conpet("data", "check", write_rows(tmp_path / "clean.jsonl", rows()), "--quick")
    assert (clean.code, "nothing found" in clean.out) == (0, True)
    write_rows(tmp_path / "t" / "train.jsonl", rows())
    write_rows(tmp_path / "t" / "test.jsonl", [{"text": HOURS[0], "label": "hours"}])
    leak = conpet("data", "check", tmp_path / "t", "--quick")
    assert leak.code == 1
    assert "Held-out inputs among training rows" in leak.out
    assert "train.jsonl: row 1: the same input is a test example (row 1 of" in leak.out
    assert "next: conpet data check" in leak.out
    assert "--fix" in leak.out


def test_all_findings_are_listed_where_wanted_and_in_json(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [*rows(), *({"text": "", "label": "hours"} for _ in range(6))])
    short, long = conpet("data", "check", file, "--quick"), conpet("data", "check", file, "--quick", "--verbose")
    assert (short.out.count("empty text"), long.out.count("empty text")) == (3, 6)
    assert "and 3 more" in short.out
    told = conpet("data", "check", file, "--quick", "--json")
    assert told.code == 1
    assert (told.json["refused"], told.json["summary"]["error"]) == (True, 6)
    assert told.json["kinds"][0]["count"] == 6
    assert {finding["place"]["row"] for finding in told.json["findings"]} >= set(range(9, 15))


def test_half_a_surrogate_pair_is_named_and_left_out(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", rows())
    with file.open("a") as stream:
        stream.write('{"text": "when \\ud800 open", "label": "hours"}\n{"text": "open now", "label": "ho\\udfffurs"}\n')
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(printed):
        assert main(["data", "check", str(file), "--quick", "--fix", str(tmp_path / "clean")]) == 0
    printed.flush()
    said = printed.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "text is not valid Unicode" in said
    assert "ho\\udfffurs" in said
    left = [json.loads(line) for line in (tmp_path / "clean" / "left-out.jsonl").read_text().splitlines()]
    assert [row["was"]["label"] for row in left] == ["hours", "ho\udfffurs"]


def test_the_page_shows_pairs_escapes_text_and_hides_personal_data(tmp_path: Path) -> None:
    odd = [{"text": "<b>bold</b> & more", "label": "hours"}, {"text": "<b>bold</b> & more", "label": "renew"}]
    file = write_rows(tmp_path / "t.jsonl", [*rows(), *odd, {"text": "write to ada@example.org", "label": "hours"}])
    made = conpet("data", "check", file, "--quick", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert made.code == 1
    assert page.count("&lt;b&gt;bold&lt;/b&gt; &amp; more") == 4
    assert "<b>" not in page
    assert "write to [e-mail address]" in page
    assert "ada@example.org" not in page + made.out + made.err
    assert not any(outside in page for outside in ("<script", "http://", "https://", "<link", "<img"))


def test_the_fix_is_a_copy_that_can_be_learned(tmp_path: Path) -> None:
    stream = write_stream(tmp_path / "stream")
    write_rows(stream / "zz.jsonl", [*rows(), {"text": STREAM[0].test[0].text, "label": "hours"}])
    done = conpet("data", "check", stream, "--quick", "--fix", tmp_path / "clean")
    assert done.code == 0
    assert "1 row left out, 0 rows changed" in done.out
    assert f"next: conpet learn WORKSPACE {tmp_path / 'clean'}" in done.out
    assert conpet("data", "check", tmp_path / "clean", "--quick").code == 0
    again = conpet("data", "check", stream, "--quick", "--fix", tmp_path / "clean")
    assert (again.code, "not an empty folder" in again.err) == (1, True)


def test_a_file_in_another_encoding_is_not_cut_down_to_its_plain_rows(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows()), "späte Rückgabe,hours"]
    file.write_bytes("\n".join(lines).encode("cp1252"))
    done = conpet("data", "check", file, "--quick", "--fix", tmp_path / "clean")
    assert done.code == 1
    assert "--encoding cp1252" in done.out
    assert conpet("data", "check", file, "--quick", "--encoding", "cp1252").code == 0
    with file.open("ab") as stream:
        stream.write(b",hours\n")
    wrong = conpet("data", "check", file, "--quick", "--encoding", "cp1252")
    assert f"or: conpet learn WORKSPACE {file} --encoding cp1252 --fix" in wrong.out


def test_what_cannot_be_mended_is_said(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", rows("same", "same"))
    done = conpet("data", "check", file, "--quick", "--fix", tmp_path / "clean")
    assert done.code == 1
    assert "still wrong" in done.out
    assert "a task needs two or more" in done.out
    assert conpet("data", "check", tmp_path / "nothing").code == 1
    assert conpet("data", "check", file, "--drop-mislabelled").code == 2


def test_against_a_workspace_the_old_row_is_named(tmp_path: Path) -> None:
    checked = conpet("data", "check", leaking(tmp_path / "new"), "--against", taught(tmp_path))
    assert checked.code == 1
    assert f"stored test example 2 of task '{STREAM[0].name}'" in checked.out
    assert STREAM[0].test[1].text in checked.out


class TestLearn:
    def test_a_leak_across_tasks_is_refused_with_both_rows_and_the_next_step(self, tmp_path: Path) -> None:
        workspace = taught(tmp_path)
        before = Store.open(workspace).generation()
        refused = conpet("learn", workspace, leaking(tmp_path / "new"))
        assert refused.code == 1
        assert "train.jsonl: row 9: trains on a held-out input: stored test example 2 of task" in refused.err
        assert "next: --fix" in refused.err
        assert Store.open(workspace).generation() == before

    def test_fix_learns_the_rest_and_stores_the_list_without_text(self, tmp_path: Path) -> None:
        workspace, new = taught(tmp_path), leaking(tmp_path / "new")
        learned = conpet("learn", workspace, new, "--fix", "--no-evaluate")
        assert learned.code == 0
        assert "new: --fix left out 1 row and changed 0 rows" in learned.out
        details = conpet("modules", "show", workspace, "new", "--json").json
        (row,) = details["left_out"]
        assert (row["file"], row["row"], row["code"]) == (str(new / "train.jsonl"), 9, "leak")
        assert STREAM[0].test[1].text not in json.dumps(details)
        shown = conpet("modules", "show", workspace, "new").out
        assert "left out    " in shown
        assert "modules show" not in shown
        assert "already learned" in conpet("learn", workspace, new, "--fix").out

    def test_dry_run_says_what_would_happen_and_changes_nothing(self, tmp_path: Path) -> None:
        workspace = taught(tmp_path)
        before = sorted(path.name for path in (workspace / "objects").iterdir())
        long = [{"text": " ".join(["word"] * 200), "label": "hours"}]
        stream = write_stream(tmp_path / "stream")
        write_rows(stream / "zz.jsonl", [*rows(), *long])
        told = conpet("learn", workspace, stream, "--dry-run")
        assert told.code == 0
        assert told.out.count("skipped: already learned") == 2
        assert "new version 1" in told.out
        assert "zz: 1 of 9 inputs will be cut at 128 tokens" in told.out
        assert "estimated from a short trial" in told.out
        assert "nothing was changed" in told.out
        assert sorted(path.name for path in (workspace / "objects").iterdir()) == before
        assert len(Store.open(workspace).snapshot().tasks) == 2
        assert "estimated" in conpet("learn", workspace, stream / STREAM[0].name, "--dry-run").out

    def test_a_span_that_is_too_long_stops_a_stream_before_its_first_task(self, tmp_path: Path) -> None:
        workspace = tmp_path / "ws"
        conpet("init", workspace, *QUICK)
        stream = write_stream(tmp_path / "stream")
        spans = [{"tokens": ["a"] * size, "mention": [0, size], "label": f"l{size % 2}"} for size in (1, 2, 3, 4, 400)]
        write_rows(stream / "zz.jsonl", spans)
        refused = conpet("learn", workspace, stream)
        assert refused.code == 1
        assert "zz.jsonl: row 5: the marked spans and the template need" in refused.err
        assert Store.open(workspace).snapshot().tasks == ()

    @pytest.mark.parametrize("latent", [True, False])
    def test_empty_test_files_and_forms_of_labels_are_noted(self, tmp_path: Path, latent: bool) -> None:
        workspace = tmp_path / "ws"
        conpet("init", workspace, *QUICK, "--method", "lda", "--set", f"replay.latent_only={str(latent).lower()}")
        given = rows()
        given[3]["label"] = "Hours"
        write_rows(tmp_path / "t" / "train.jsonl", given)
        (tmp_path / "t" / "test.jsonl").write_text("")
        learned = conpet("learn", workspace, tmp_path / "t")
        assert learned.code == 0
        assert "t: the test file is empty: accuracy is not measured" in learned.out
        assert "labels that are probably the same: 'Hours' and 'hours'" in learned.out
        assert "Hours" in Store.open(workspace).snapshot().task("t").active.labels
        mended = conpet("learn", workspace, tmp_path / "t", "--fix")
        assert "changed 1 row" in mended.out
        assert Store.open(workspace).snapshot().task("t").active.labels == ("hours", "renew")


def inbox(folder: Path) -> Path:
    """Write a file of labels that a workspace of `STREAM` knows and of new ones, with one fault of some kinds each."""
    first, second = STREAM
    known = [
        {"text": "a quite new example", "label": first.labels[0]},
        {"text": first.train[0].text, "label": first.train[0].label},  # 2: stored already
        {"text": second.test[0].text, "label": first.labels[0]},  # 3: a test input of another task
        {"text": "one more new example", "label": first.labels[1].upper()},  # 4: a form of a known label
        {"text": "a quite new example", "label": first.labels[0]},  # 5: given twice
        {"text": "", "label": first.labels[0]},  # 6: empty
    ]
    return write_rows(folder / "inbox.jsonl", [*known, *rows()])


def details(workspace: Path, task: str) -> Any:
    return conpet("modules", "show", workspace, task, "--json").json


class TestMoreExamples:
    def test_all_checks_are_made_and_the_fix_is_stored_with_each_task(self, tmp_path: Path) -> None:
        workspace, file = taught(tmp_path), inbox(tmp_path)
        refused = conpet("learn", workspace, file, "--mixed")
        assert refused.code == 1
        assert f"row 3: trains on a held-out input: stored test example 1 of task '{STREAM[1].name}'" in refused.err
        assert "row 6: empty text" in refused.err
        assert "next: --fix learns without the wrong rows" in refused.err
        planned = conpet("learn", workspace, file, "--mixed", "--fix", "--dry-run")
        assert planned.code == 0, planned.err
        assert "inbox: --fix left out 4 rows and changed 1 row" in planned.out
        assert f"{STREAM[0].name}: a new version, 2 more training examples of 2 labels" in planned.out
        assert "inbox: a new task, 4 training examples (and 2 validation + 2 test) of 2 labels" in planned.out
        assert "new version 2" in planned.out
        assert "a dry run, nothing was changed" in planned.out
        learned = conpet("learn", workspace, file, "--mixed", "--fix", "--no-evaluate")
        assert [line for line in planned.out.splitlines() if line.startswith(("inbox: ", f"{STREAM[0].name}: "))] == (
            [line for line in learned.out.splitlines() if line.startswith(("inbox: ", f"{STREAM[0].name}: "))][:3]
        )
        of_known = {row["row"]: row["code"] for row in details(workspace, STREAM[0].name)["left_out"]}
        assert of_known == {2: "duplicate", 3: "leak", 4: "label-forms", 5: "duplicate", 6: "invalid-row"}
        assert "left_out" not in details(workspace, "inbox")
        checked = conpet("data", "check", file, "--against", workspace, "--quick")
        assert "next: conpet data check" in checked.out

    def test_into_takes_the_new_labels(self, tmp_path: Path) -> None:
        workspace, file = (
            taught(tmp_path),
            write_rows(tmp_path / "new.jsonl", [*rows(), {"text": " ", "label": "hours"}]),
        )
        done = conpet("learn", workspace, file, "--mixed", "--into", STREAM[1].name, "--fix", "--dry-run")
        assert f"{STREAM[1].name}: a new version, 8 more training examples of 2 labels, 2 of them new" in done.out
        done = conpet("learn", workspace, file, "--mixed", "--into", STREAM[1].name, "--fix", "--no-evaluate")
        assert f"{STREAM[1].name}: learned 4 labels as version 2" in done.out
        assert [row["row"] for row in details(workspace, STREAM[1].name)["left_out"]] == [9]

    def test_extend_says_what_it_ignores(self, tmp_path: Path) -> None:
        workspace, first = taught(tmp_path), STREAM[0]
        old = [{"text": one.text, "label": one.label} for one in (*first.train[:2], first.test[0])]
        file = write_rows(tmp_path / "more.jsonl", [*old, *2 * [{"text": "quite new", "label": first.labels[0]}]])
        planned = conpet("learn", workspace, file, "--extend", "--dry-run")
        assert "1 more training example of 1 label; 3 examples already stored; 1 example given twice" in planned.out
        assert details(workspace, first.name)["version"] == 1
        learned = conpet("learn", workspace, file, "--extend", "--no-evaluate")
        ignored = f"{first.name}: ignored 4 of 5 examples: 3 stored already, 1 given twice"
        assert f"{ignored}; `conpet modules show` lists them" in learned.out
        listed = [(row["file"], row["row"]) for row in details(workspace, first.name)["left_out"]]
        assert listed == [(str(file), number) for number in (1, 2, 3, 5)]
        again = conpet("learn", workspace, file, "--extend", "--no-evaluate")
        listing = "`conpet data check FILE --against WORKSPACE --verbose` lists them"
        assert f"{first.name}: ignored 5 of 5 examples: 5 stored already; {listing}" in again.out
        assert "nothing done" in again.out
        nothing = conpet("learn", workspace, file, "--extend", "--fix")
        assert (nothing.code, "more: nothing new: no training row is left" in nothing.out) == (0, True)
        write_rows(tmp_path / "x.jsonl", [{"text": text, "label": "x"} for text in "abc"])
        for fix in ((), ("--fix",)):
            unknown = conpet("learn", workspace, tmp_path / "x.jsonl", "--extend", *fix)
            assert (unknown.code, "row 1: no task has a label 'x'" in unknown.err) == (1, True)
            assert "`--mixed` instead of `--extend`" in unknown.err

    def test_a_dry_run_of_a_stream_knows_the_labels_of_its_first_part(self, tmp_path: Path) -> None:
        workspace = taught(tmp_path)
        write_rows(tmp_path / "s" / "1-desk.jsonl", rows())
        more = [
            {"text": "closed at noon", "label": "hours"},
            *({"text": f"fee {n}", "label": f"fee{n % 2}"} for n in range(4)),
        ]
        write_rows(tmp_path / "s" / "2-fees.jsonl", more)
        planned = conpet("learn", workspace, tmp_path / "s", "--mixed", "--dry-run", "--all-rows")
        said = planned.out.splitlines()[:3]
        assert said == [
            "1-desk: a new task, 8 training examples of 2 labels",
            "1-desk: a new version, 1 more training example of 1 label",
            "2-fees: a new task, 4 training examples of 2 labels",
        ]
        learned = conpet("learn", workspace, tmp_path / "s", "--mixed", "--all-rows", "--no-evaluate")
        assert [line for line in learned.out.splitlines() if line in said] == said


def test_long_labels_are_shortened_except_in_json(tmp_path: Path) -> None:
    long = "the customer wants to know when the parcel that was sent last week will arrive"
    given = [*rows(long), {"text": HOURS[0], "label": "renew"}]
    file = write_rows(tmp_path / "t.jsonl", given)
    shown = conpet("data", "check", file, "--quick", "--html", tmp_path / "page.html", "--verbose")
    assert "the customer wants to know when the parcel" in shown.out
    assert long not in shown.out
    assert f'<span title="{long}">' in (tmp_path / "page.html").read_text(encoding="utf-8")
    (finding,) = [one for one in conpet("data", "check", file, "--quick", "--json").json["findings"] if one["other"]][
        :1
    ]
    assert {finding["place"]["label"], finding["other"]["label"]} == {long, "renew"}
    assert long in finding["message"]


def piped(monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent.encode()), encoding="utf-8"))


TABLE = "id;text;label\n" + "".join(f"{number};{row['text']};{row['label']}\n" for number, row in enumerate(rows()))
"""The rows of a table, and a test input of the first task of `STREAM`."""
LEAK = f"leak;{STREAM[0].test[0].text};hours\n"


def test_data_from_standard_input_is_checked_and_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, TABLE + "77; ;hours\n")
    folder = tmp_path / "clean"
    done = conpet("data", "check", "-", "--input-format", "csv", "--quick", "--fix", folder)
    assert (done.code, "standard input: row 10: empty text" in done.out) == (0, True)
    (left,) = [json.loads(line) for line in (folder / "left-out.jsonl").read_text().splitlines()]
    assert (left["file"], left["row"]) == ("standard input", 10)
    kept = [json.loads(line) for line in (folder / "stdin.jsonl").read_text().splitlines()]
    assert [row["id"] for row in kept] == [str(number) for number in range(8)]
    piped(monkeypatch, "nonsense\n")
    refused = conpet("data", "check", "-", "--quick")
    assert refused.code == 1
    assert "other formats with --input-format" in refused.out
    piped(monkeypatch, TABLE)
    assert "--name NAME" not in conpet("data", "check", "-", "--input-format", "csv", "--quick").out


def test_a_task_is_learned_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = taught(tmp_path)
    piped(monkeypatch, TABLE)
    unnamed = conpet("learn", workspace, "-", "--input-format", "csv")
    assert (unnamed.code, "a task from standard input needs a name" in unnamed.err) == (2, True)
    arguments = ("learn", workspace, "-", "--input-format", "csv", "--name", "library", "--all-rows", "--no-evaluate")
    piped(monkeypatch, TABLE + LEAK)
    refused = conpet(*arguments)
    assert refused.code == 1
    assert "standard input: row 10: trains on a held-out input: stored test example" in refused.err
    piped(monkeypatch, TABLE + LEAK)
    planned = conpet(*arguments, "--fix", "--dry-run")
    assert (planned.code, "library" in planned.out) == (0, True)
    assert len(Store.open(workspace).snapshot().tasks) == len(STREAM)
    piped(monkeypatch, TABLE + LEAK)
    assert conpet(*arguments, "--fix").code == 0
    task = Store.open(workspace).snapshot().task("library")
    assert task.active.labels == ("hours", "renew")
    piped(monkeypatch, "text;label\nlend it to me once more;renew\n")
    more = conpet("learn", workspace, "-", "--input-format", "csv", "--extend", "--no-evaluate")
    assert (more.code, Store.open(workspace).snapshot().task("library").active.number) == (0, 2)


def test_a_terminal_as_standard_input_is_told_how_to_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, "".join(json.dumps(row) + "\n" for row in rows()))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    typed = conpet("data", "check", "-", "--quick")
    assert (typed.code, "reading standard input" in typed.err, "Ctrl-D" in typed.err) == (0, True, True)
    assert "nothing found" in typed.out
