"""Reading tasks and inputs: formats, forms of the fields, what is said of every wrong row."""

import contextlib
import csv
import gzip
import importlib
import io
import itertools
import json
import sys
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conpet.data import Example, Kind, Span, count_inputs, read_examples, read_inputs, read_stream, read_task
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError

Rows = list[dict[str, Any]]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD: Rows = [{"text": f"text {at}", "label": "ab"[at % 2]} for at in range(20)]
RELATION = {"tokens": ["Ada", "met", "Bob"], "head": {"start": 0, "end": 1}, "tail": {"start": 2, "end": 3}}


def write(path: Path, rows: Rows) -> Path:
    """Write rows in the format the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows
        )
        path.write_bytes(text.getvalue().encode())
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def problems(path: Path, **options: Any) -> list[tuple[str, int | None, str]]:
    with pytest.raises(DataError) as caught:
        read_task(path, **options)
    return [(Path(one.file).name, one.row, one.reason) for one in caught.value.problems]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_every_format_reads_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [{**row, "text": row["text"] + ' 請求書, "x"\n', "id": str(at), "extra": 1} for at, row in enumerate(GOOD)]
    folder = tmp_path / "billing"
    for subset in ("train", "dev", "test"):
        write(folder / f"{subset}.{suffix}", [{**row, "text": subset + row["text"]} for row in rows])
    task = read_task(folder)
    assert task.name == "billing"
    assert task.labels == ("a", "b")
    assert task.train[3] == Example.of_text('traintext 3 請求書, "x"\n', "b", "3")
    assert [len(subset) for subset in (task.train, task.validation, task.test)] == [20, 20, 20]
    assert task.notes == ()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_relations_and_mentions(tmp_path: Path, suffix: str) -> None:
    relations = [RELATION | {"tokens": ["Ada", "met", f"B{at}"], "label": "xy"[at % 2]} for at in range(4)]
    task = read_task(write(tmp_path / f"r.{suffix}", relations))
    assert task.kind is Kind.RELATION
    assert (task.train[0].head, task.train[0].tail) == (Span(0, 1), Span(2, 3))
    mentions = [{"tokens": ["in", f"P{at}"], "mention": [1, 2], "label": "xy"[at % 2]} for at in range(4)]
    task = read_task(write(tmp_path / f"m.{suffix}", mentions))
    assert task.train[0].mention == Span(1, 2)


@pytest.mark.parametrize(
    "span", [{"start": 0, "end": 1, "id": "Q1"}, [0, 1], "0:1", "[0, 1]", '{"start": 0, "end": 1}']
)
@pytest.mark.parametrize("tokens", [["Ada", "ran"], "Ada ran", '["Ada", "ran"]'])
def test_forms_of_spans_and_tokens(tmp_path: Path, span: Any, tokens: Any) -> None:
    path = write(tmp_path / "i.jsonl", [{"tokens": tokens, "mention": span, "text": "is ignored", "label": 7}])
    assert list(read_inputs(path)) == [Example.of_mention(("Ada", "ran"), Span(0, 1), "7")]


def test_words_that_look_like_json_stay_words(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", [{"tokens": "[ citation needed ]", "mention": "1:2"}])
    assert next(read_inputs(path)).tokens == ("[", "citation", "needed", "]")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": " ", "label": "a"}, "empty text"),
        ({"text": "new"}, "missing label"),
        ({"text": "new", "label": " "}, "missing label"),
        ({"text": "new", "label": None}, "missing label"),
        ({"text": "new", "label": 1.5}, "label must be text or a whole number, not 1.5"),
        ({"text": ["new"], "label": "a"}, "text must be text"),
        ({"label": "a"}, "missing text (or tokens with head and tail, or with mention)"),
        ({"tokens": ["x"], "label": "a"}, "tokens without spans"),
        ({"tokens": [], "mention": [0, 1], "label": "a"}, "empty tokens"),
        ({"tokens": ["x", 1], "mention": [0, 1], "label": "a"}, "tokens must be a list of words"),
        (
            {"head": [0, 1], "tail": [1, 2], "label": "a"},
            "missing text (or tokens with head and tail, or with mention)",
        ),
        ({"tokens": ["x"], "head": [0, 1], "label": "a"}, "missing tail span"),
        (RELATION | {"mention": [0, 1], "label": "a"}, "head and tail and mention cannot be combined"),
        (RELATION | {"head": [2, 4], "label": "a"}, "head span 2:4 is outside the 3 tokens"),
        (RELATION | {"head": "x", "label": "a"}, "head must be a span"),
        (RELATION | {"head": [0, True], "label": "a"}, "head must be a span"),
        ({"text": "text 0", "label": "b"}, "label 'b' contradicts row 1: the same input has 'a'"),
        ({"text": "\ud800", "label": "b"}, "text is not valid Unicode"),
    ],
)
def test_a_wrong_row_is_named_with_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in [*GOOD[:4], row, *GOOD[4:]]))
    found = [(file, at) for file, at, said in problems(path) if reason in said]
    assert found == [("t.jsonl", 5)]


def test_unreadable_lines_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [json.dumps(row).encode() for row in GOOD]
    lines[1], lines[3], lines[5], lines[7] = b'{"text": "caf\xe9"}', b'{"text": ', b"[1]", b"[" * 100_000
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n\r\n")
    found = problems(path)
    assert [row for _, row, _ in found] == [2, 4, 6, 8]
    assert [said.split(";")[0].split(":")[0] for _, _, said in found] == [
        "is not UTF-8 text",
        "not valid JSON",
        'not a JSON object such as {"text"',
        "not usable JSON",
    ]


def test_a_csv_counts_its_header_as_row_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbftext,label\none,a\n"two\nlines",b\n\ncaf\xe9,a\nfour,a,b\n,b\nsix,\n')
    assert problems(path) == [
        (
            "t.csv",
            5,
            "is not UTF-8 text; it looks like cp1252: save it as UTF-8, or read it with --encoding cp1252",
        ),
        ("t.csv", 6, "has 3 cells where the header has 2"),
        ("t.csv", 7, "empty text"),
        ("t.csv", 8, "missing label"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"one,two\na,b\n", "no column named text or tokens; columns: 'one', 'two'. Name the one to read"),
        ("t.csv", b"text,text,label\n", "more than once"),
        ("t.csv", "text,label\na,b\n".encode("utf-16-le"), "it looks like utf-16-le"),
        ("t.csv", b'text,label\n"never closed,a\nb,c\n', "not valid CSV"),
        ("t.csv", b"", "no training example: there are no rows"),
        ("t.csv", b"\n  \n,,\n", "no training example: there are no rows"),
        ("t.jsonl.gz", b"plain", "cannot be read: Not a gzipped file"),
        ("t.jsonl.gz", gzip.compress(b"{}\n" * 9, mtime=0)[:-9], "cannot be read"),
        ("t.parquet", b"PAR1 and no more", "not a readable Parquet file"),
        ("t.parquet", b"", "not a readable Parquet file"),
        ("t.json", b"{}", "is an object with no names; expected a list of objects"),
        ("t.xls", b"\xd0\xcf", "unknown file format; readable: .jsonl"),
        ("t.xls", b"\xd0\xcf", "save it as .xlsx"),
        ("t.dat", b"text,label\na,b\n", "a file with another name: --input-format"),
        ("t.csv", b"PAR1 and more", "it is a Parquet file; give its name the ending .parquet"),
        ("t.jsonl", b"PK\3\4 and more", "it is an Excel workbook or a zip archive"),
        ("t.csv", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("t.csv", b'{"text": "a", "label": "b"}\n', "it looks like JSON: --input-format jsonl"),
        ("t.jsonl", b"text,label\na,b\n", "not valid JSON: Expecting value at character 1; if it is a table"),
        ("t.jsonl", b'[\n{"text": "a"}\n]\n', "if it is one JSON document: --input-format json"),
        ("t.json", b"text,label\na,b\n", "if it is a table: --input-format csv"),
        ("t.txt", b'{"text": "a", "label": "b"}\n', "if its lines are JSON: --input-format jsonl"),
        ("t.txt", b"text;label\na;b\n", "if it is a table: --input-format csv"),
        ("t.txt", b"a\tb\nc\td\n", "if it is a table: --input-format tsv"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert any(says in said for _, _, said in problems(tmp_path / name))


def test_a_parquet_file_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", GOOD)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[parquet\]'"):
        read_task(path)


def test_bad_bytes_in_a_parquet_string_are_a_wrong_row(tmp_path: Path) -> None:
    good = pa.array([row["text"].encode() for row in GOOD[:4]] + [b"caf\xe9"], pa.binary())
    text = pa.StringArray.from_buffers(5, good.buffers()[1], good.buffers()[2])
    pq.write_table(pa.table({"text": text, "label": ["a", "b", "a", "b", "a"]}), tmp_path / "t.parquet")
    assert problems(tmp_path / "t.parquet") == [("t.parquet", 5, "is not UTF-8 text; save it as UTF-8")]


def test_duplicates_between_the_subsets_and_unknown_labels(tmp_path: Path) -> None:
    write(tmp_path / "t" / "train.jsonl", GOOD)
    write(tmp_path / "t" / "valid.jsonl", [{"text": "v", "label": "c"}])
    write(tmp_path / "t" / "test.csv", [{"text": "w", "label": "a"}, GOOD[2]])
    assert problems(tmp_path / "t") == [
        ("test.csv", 3, "the same input is also a training example (row 3)"),
        ("valid.jsonl", 1, "label 'c' has no training example"),
    ]


def test_missing_sets_are_split_off_and_said_so(tmp_path: Path) -> None:
    path = write(tmp_path / "cards.jsonl", GOOD)
    task = read_task(path, seed=3)
    assert [len(subset) for subset in (task.train, task.validation, task.test)] == [14, 2, 4]
    assert task.notes == (
        "no test set: 4 of 20 training rows were split off with seed 3",
        "no validation set: 2 of 16 training rows were split off with seed 3",
    )
    write(tmp_path / "shuffled.jsonl", GOOD[::-1])
    assert set(read_task(tmp_path / "shuffled.jsonl", seed=3).test) == set(task.test)
    assert read_task(path, seed=3).digest == task.digest
    assert read_task(path, seed=4).digest != task.digest


def test_all_rows_can_be_learned_from(tmp_path: Path) -> None:
    write(tmp_path / "t" / "train.csv", GOOD)
    write(tmp_path / "t" / "test.csv", [{"text": "of its own", "label": "a"}])
    for task in (read_task(tmp_path / "t", all_rows=True), *read_stream(tmp_path / "t", all_rows=True)):
        assert [len(subset) for subset in (task.train, task.validation, task.test)] == [len(GOOD), 0, 1]
        assert not task.notes
    few = write(tmp_path / "few.csv", GOOD[:2])
    assert read_task(few).notes == (
        "no test set, and none was split off: every label has fewer than 3 distinct inputs",
        "no validation set, and none was split off: every label has fewer than 3 distinct inputs",
    )
    of_few = read_task(few, all_rows=True)
    assert ([one.text for one in of_few.train], of_few.notes) == ([row["text"] for row in GOOD[:2]], ())


def test_a_label_owned_before_is_refused_at_every_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD[:4])
    assert problems(path, owned={"b": "old"}) == [
        ("t.jsonl", 2, "label 'b' belongs to the earlier task 'old'"),
        ("t.jsonl", 4, "label 'b' belongs to the earlier task 'old'"),
    ]
    assert read_task(path, owned={"b": "t"}).labels == ("a", "b")


def test_wrong_template_settings_and_place(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD)
    assert "unknown field" in problems(path, template="{txt}")[0][2]
    assert "unknown setting 'rnak'" in problems(path, settings={"rnak": 2})[0][2]
    assert read_task(path, name="n", template="{text}:", settings={"module": {"rank": 2}}).settings == {
        "module": {"rank": 2}
    }
    assert problems(tmp_path / "none.jsonl") == [("none.jsonl", None, "no such file or folder")]
    assert "contains no train file" in problems(tmp_path)[0][2]
    write(tmp_path / "u" / "train.csv", GOOD)
    write(tmp_path / "u" / "train.jsonl", GOOD)
    assert problems(tmp_path / "u") == [("train.jsonl", None, "is a second train file, next to train.csv; keep one")]


def test_inputs_stream_and_stop_at_the_first_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "i.jsonl", [{"text": "one"}, {"text": "two", "label": ""}, {"text": ""}])
    inputs = read_inputs(path)
    assert [next(inputs), next(inputs)] == [Example.of_text("one"), Example.of_text("two")]
    with pytest.raises(DataError, match=r"i.jsonl: row 3: empty text"):
        next(inputs)
    assert list(read_inputs(path, on_error="report"))[2] == Problem(str(path), 3, "empty text")
    with pytest.raises(DataError, match="no such file"):
        list(read_inputs(tmp_path / "none.jsonl", on_error="report"))
    stdin = io.TextIOWrapper(io.BytesIO('{"text": "三"}\n'.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_inputs("-")) == [Example.of_text("三")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nonsense\n")))
    with pytest.raises(DataError, match="standard input: row 1: not valid JSON"):
        list(read_inputs("-"))


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", "text,label\n三,a\nfour,b\n"),
        ("tsv", "label\ttext\na\t三\nb\tfour\n"),
        ("json", '[{"text": "三"}, {"text": "four"}]'),
        ("txt", "三\n\nfour\n"),
        ("jsonl", '{"text": "三"}\n{"text": "four"}\n'),
        ("yml", 'version: "3.1"\nnlu:\n- intent: a\n  examples: |\n    - 三\n    - four\n'),
    ],
)
def test_standard_input_has_any_text_format(form: str, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, content.encode())
    assert [one.text for one in read_inputs("-", format=form)] == ["三", "four"]


def test_what_standard_input_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for form, content, said in (
        ("parquet", b"", "cannot be read as parquet from standard input; save it to a file"),
        ("csv", gzip.compress(b"text\na\n"), "it is compressed; decompress it first: gzip -dc FILE"),
        (None, gzip.compress(b"{}"), "it is compressed"),
        (None, b"text,label\na,b\n", "other formats with --input-format"),
        ("csv", b"text\nna\xefve caf\xe9\n", "looks like cp1252"),
    ):
        piped(monkeypatch, content)
        with pytest.raises(DataError, match=f"standard input: .*{said}"):
            list(read_inputs("-", format=form))
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"text\na\n"))
    with pytest.raises(DataError, match=r"it is compressed; give its name the ending \.gz"):
        list(read_inputs(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("t.csv", "id,text\n1,a,b\n2,\n,\n", ["1", "2", None]),
        ("t.csv", "text,id\na,b,1\nc\n", ["1", None]),
        ("t.csv", "a;id;text\nx;1;y;z\nx;2\n", ["1", "2"]),
        ("t.csv", "ID,utterance\n1,a,b\n", ["1"]),
        ("t.jsonl", '{"id": 0}\n{"Id": [1], "x": 2}\n{"id": "c", "text": 3}\n{"id": ""}\n', [0, [1], "c", None]),
        ("t.json", '[{"id": {"a": 1}}, {"id": 2.5, "text": " "}]', [{"a": 1}, 2.5]),
    ],
)
def test_a_wrong_row_keeps_its_id(tmp_path: Path, name: str, content: str, ids: list[object]) -> None:
    (tmp_path / name).write_text(content)
    found = list(read_inputs(tmp_path / name, on_error="report"))
    assert [one.id for one in found] == ids
    assert all(isinstance(one, Problem) for one in found)


def test_numbers_that_json_does_not_have_are_no_ids(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(f'{{"text": "a", "id": {given}}}\n' for given in ("NaN", "1e400", "[NaN]"))
    )
    ids = [one.id for one in read_inputs(tmp_path / "t.jsonl") if isinstance(one, Example)]
    assert ids[:2] == [None, None]
    assert isinstance(ids[2], str)


def test_a_wrong_row_keeps_the_id_of_a_named_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,text\n7,a,b\n")
    (problem,) = read_inputs(tmp_path / "t.csv", columns={"id": "key"}, on_error="report")
    assert problem.id == "7"


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_inputs_are_counted(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": f"two\nlines {at}"} for at in range(7)]
    assert count_inputs(write(tmp_path / f"i.{suffix}", rows)) == 7


def test_what_cannot_be_counted_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"x")
    assert [count_inputs(path) for path in ("-", tmp_path / "none.csv", tmp_path / "bad.parquet")] == [None] * 3


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_inputs_take_constant_memory(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"i.{suffix}", [{"text": f"{at} " + "x" * 500} for at in range(20_000)])
    next(read_inputs(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_inputs(path)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@QUICK
@given(
    texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), suffix=st.sampled_from(["jsonl", "csv", "parquet"])
)
def test_any_text_comes_back_as_written(tmp_path: Path, texts: list[tuple[str, str]], suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", [{"text": text, "label": label} for text, label in texts])
    cleaned = [(text, unicodedata.normalize("NFC", label.strip())) for text, label in texts]
    assert list(read_inputs(path)) == [Example.of_text(text, label) for text, label in cleaned]


@QUICK
@given(words=st.lists(TEXTS, min_size=1, max_size=5), suffix=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_any_words_come_back_as_written(tmp_path: Path, words: list[str], suffix: str) -> None:
    example = Example.of_mention(words, Span(0, len(words)), "x", "7")
    row = {key: value for key, value in example.to_json().items() if key != "kind"}
    assert list(read_inputs(write(tmp_path / f"t.{suffix}", [row]))) == [example]


VALID = {
    "t.jsonl": json.dumps(GOOD[0]).encode() + b"\n",
    "t.csv": b'text,label\n"a, b",c\n',
    "t.jsonl.gz": gzip.compress(json.dumps(GOOD[0]).encode()),
}


@QUICK
@given(
    name=st.sampled_from([*VALID, "t.parquet"]),
    noise=st.binary(max_size=60),
    at=st.integers(0, 60),
    row=st.dictionaries(
        st.sampled_from(["text", "tokens", "head", "tail", "mention", "label", "id"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["start", "end"]), inner),
            max_leaves=4,
        ),
    ),
)
def test_nothing_but_a_data_error_on_any_bytes(
    tmp_path: Path, name: str, noise: bytes, at: int, row: dict[str, Any]
) -> None:
    base = VALID.get(name, b"PAR1PAR1")
    contents = [noise, base[:at] + noise + base[at:], base + json.dumps(row).encode()]
    for content in contents:
        (tmp_path / name).write_bytes(content)
        count_inputs(tmp_path / name)
        with contextlib.suppress(DataError):
            assert read_task(tmp_path / name).train


ZSTD = importlib.import_module("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.tsv", "t.json", "t.lu"])
def test_text_files_may_be_compressed(tmp_path: Path, name: str, suffix: str) -> None:
    texts = {
        "t.jsonl": '{"text": "one"}\n{"text": "two"}\n',
        "t.csv": "text\none\ntwo\n",
        "t.tsv": "id\ttext\n1\tone\n2\ttwo\n",
        "t.json": '[{"text": "one"}, {"text": "two"}]',
        "t.lu": "# A\n- one\n- two\n",
    }
    compress = gzip.compress if suffix == "gz" else ZSTD.compress
    path = tmp_path / f"{name}.{suffix}"
    path.write_bytes(compress(texts[name].encode()))
    assert [one.text for one in read_inputs(path)] == ["one", "two"]
    assert count_inputs(path) == 2
    path.write_bytes(compress(texts[name].encode())[:-6])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_inputs(path))


def test_zstandard_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ZSTD.__name__, None)
    monkeypatch.setattr("backports.zstd", None, raising=False)
    monkeypatch.delattr("backports.zstd", raising=False)
    (tmp_path / "t.csv.zst").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'conpet\[zst\]'"):
        list(read_inputs(tmp_path / "t.csv.zst"))


def test_labels_are_cleaned_and_that_is_said_once(tmp_path: Path) -> None:
    labels = ["hours", " hours", "hours\u00a0", "re\u0301new", "r\u00e9new", ["hours"], [7], 7]
    path = write(tmp_path / "t.jsonl", [{"text": f"text {at}", "label": label} for at, label in enumerate(labels)])
    task = read_task(path, all_rows=True)
    assert task.labels == ("7", "hours", "r\u00e9new")
    assert task.notes == (
        "labels of 3 rows were cleaned: blanks around them removed, Unicode form NFC",
        "the label is a list of one in 2 rows; that label was taken",
    )


def test_several_labels_in_a_row_are_refused_for_learning_only(tmp_path: Path) -> None:
    rows = [*GOOD, {"text": "both", "label": ["a", "b"]}, {"text": "none", "label": []}, {"text": "no", "label": True}]
    path = write(tmp_path / "t.jsonl", rows)
    assert [said for _, _, said in problems(path)] == [
        "one label per row is learned, and this row has 2: 'a', 'b'; keep one of them, or learn a task for each kind "
        "of label",
        "label must be text or a whole number, not True; write it as text: 'true'",
        "missing label",
    ]
    assert [example.label for example in read_inputs(path)][-3:] == [None, None, None]


def test_ids_come_back_as_they_were(tmp_path: Path) -> None:
    ids = [7, "7", 1.5, True, [1, "a"], {"doc": 3}, 0]
    path = write(
        tmp_path / "t.jsonl", [{"text": f"t {at}", "id": one, "label": "ab"[at % 2]} for at, one in enumerate(ids)]
    )
    examples = list(read_inputs(path))
    assert [(type(one.id), one.id) for one in examples] == [(type(one), one) for one in ids]
    assert [Example.from_json(one.to_json()) for one in examples] == examples
    assert len(set(examples)) == len(ids)
    without = write(tmp_path / "u.jsonl", [{"text": one.text, "label": one.label} for one in examples])
    assert read_task(path, name="x").digest == read_task(without, name="x").digest


def test_keys_of_rows_in_any_case_and_under_common_names(tmp_path: Path) -> None:
    rows = [{"Text ": "one", "LABEL": "a", "ID": 1}, {"utterance": "two", "intent": "b"}, {"query": "x", "input": "y"}]
    path = write(tmp_path / "t.jsonl", rows)
    assert [(one.text, one.label) for one in itertools.islice(read_inputs(path), 2)] == [("one", "a"), ("two", "b")]
    (_, row, said), *_ = problems(path)
    assert (row, said.partition(". Name")[0]) == (
        3,
        "missing text (or tokens with head and tail, or with mention); fields: 'query', 'input'. "
        "Likely: 'query' or 'input'",
    )
    first = next(read_inputs(path, columns={"text": "label", "id": "text"}))
    assert (first.text, first.label, first.id) == ("a", None, "one")


SENTENCE = "Ada Lovelace met Bob."


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_spans_of_characters(tmp_path: Path, suffix: str) -> None:
    row = {"text": SENTENCE, "head": [0, 12], "tail": [17, 20], "label": "knows"}
    (example,) = read_inputs(write(tmp_path / f"t.{suffix}", [row]))
    assert example == Example.of_relation(("Ada", "Lovelace", "met", "Bob", "."), Span(0, 2), Span(3, 4), "knows")
    (example,) = read_inputs(
        write(tmp_path / f"u.{suffix}", [row | {"head": [0, 11], "tail": [17, 19]}]), inclusive_ends=True
    )
    assert (example.head, example.tail) == (Span(0, 2), Span(3, 4))
    (example,) = read_inputs(write(tmp_path / f"v.{suffix}", [{"text": "彼はオスロに住む", "mention": "2:5"}]))
    assert (example.tokens, example.mention) == (("彼は", "オスロ", "に住む"), Span(1, 2))


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ([17, 40], "mention span 17:40 is outside the 21 characters of the text"),
        ([-1, 3], "mention span -1:3 is outside the 21 characters of the text"),
        ([3, 3], "mention span 3:3 is empty: its end is exclusive (--inclusive-ends reads it as inclusive)"),
        ([3, 4], "mention span 3:4 contains only blanks"),
        (
            {"start": 17, "end": 19, "text": "Bob"},
            "mention span 17:19 is 'Bo' in the text, not 'Bob'; its end is inclusive: ",
        ),
        ({"start": 0, "end": 3, "text": "Bob"}, "mention span 0:3 is 'Ada' in the text, not 'Bob'"),
    ],
)
def test_a_span_that_fits_nothing_is_named(tmp_path: Path, span: Any, reason: str) -> None:
    rows = [{"text": SENTENCE, "mention": [0, 3], "label": "a"}, {"text": SENTENCE, "mention": span, "label": "b"}]
    found = [(row, said) for _, row, said in problems(write(tmp_path / "t.jsonl", rows)) if said.startswith(reason)]
    assert [row for row, _ in found] == [2]


def test_a_path_that_does_not_exist_is_said_without_counting(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    for read in (read_task, read_stream, read_examples):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: no such file or folder; nothing was learned"
    with pytest.raises(DataError) as caught:
        list(read_inputs(path))
    assert str(caught.value) == f"{path}: no such file or folder"


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD)
    for options, error, said in (
        ({"columns": {"txt": "a"}}, ConfigError, r"columns: no field 'txt' \(did you mean 'text'\?\)"),
        ({"encoding": "latin-99"}, ConfigError, "encoding 'latin-99' is unknown"),
        ({"format": "cvs"}, UnknownNameError, r"no file format 'cvs' \(did you mean"),
    ):
        with pytest.raises(error, match=said):
            read_task(path, **options)
    renamed = write(tmp_path / "data.jsonl", GOOD).rename(tmp_path / "data.bin")
    assert len(read_task(renamed, format="jsonl", all_rows=True).train) == len(GOOD)


def test_a_table_may_name_the_subsets_of_its_rows(tmp_path: Path) -> None:
    names = ["train", "Train ", "dev", "test"] * 5
    rows = [{**row, "Split": name} for row, name in zip(GOOD, names, strict=True)]
    task = read_task(write(tmp_path / "t.csv", rows))
    assert [len(subset) for subset in (task.train, task.validation, task.test)] == [10, 5, 5]
    assert task.notes == ("the rows name their subsets (split or training): 10 train, 5 validation, 5 test",)
    rows[0]["Split"] = "holdout"
    task = read_task(write(tmp_path / "t.csv", rows), all_rows=True)
    assert len(task.train) == 20
    assert task.notes == ("the column split is not used: 1 row names 'holdout' instead of train, validation or test",)


def test_a_list_of_entities_among_labels_is_an_example_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\n[a] b,[a]\nAda ran,"[{""start"": 0, ""end"": 3, ""label"": ""PER""}]"\n')
    ((row, said),) = [(row, said) for _, row, said in problems(path) if row]
    assert row == 3
    assert said == "is a typing example; the first training row is a text example"
