"""Whatever is uploaded is read or refused with a reason, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conpet import Task
from conpet.errors import ConfigError, DataError
from conpet.jobs.data import DATA, SAMPLE, read_examples, read_tasks
from conpet.jobs.intake import read_upload
from conpet.jobs.uploads import FORMATS, CheckedUpload, UploadOptions, check_upload
from tests.helpers.workspaces import stream

FIRST, SECOND, _ = stream()
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"text": st.text(max_size=9) | ANYTHING, "label": st.sampled_from("ab") | ANYTHING},
        optional={"tokens": ANYTHING, "head": ANYTHING},
    ),
    max_size=5,
)
TASKS = st.fixed_dictionaries(
    {"name": st.text(max_size=9) | ANYTHING},
    optional={
        "rows": ROWS,
        "train": ROWS,
        "test": ROWS | ANYTHING,
        "settings": ANYTHING,
        "template": st.text(max_size=9) | ANYTHING,
    },
)


def rows(task: Task) -> list[dict[str, Any]]:
    return [{"text": one.text, "label": one.label} for one in task.train]


@settings(max_examples=150)
@given(body=TASKS | st.fixed_dictionaries({"tasks": st.lists(TASKS, max_size=3)}) | ANYTHING, extend=st.booleans())
def test_any_json_is_read_or_refused(body: Any, extend: bool) -> None:
    check_read(json.dumps(body).encode(), "json", extend)


@settings(max_examples=100)
@given(content=st.binary(max_size=200), form=st.sampled_from(FORMATS), packed=st.booleans())
def test_any_bytes_are_read_or_refused(content: bytes, form: str, packed: bool) -> None:
    check_read(gzip.compress(content) if packed else content, form, extend=False)


def check_read(content: bytes, form: str, extend: bool) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"upload.{form}").write_bytes(content)
        refused = ""
        try:
            read_upload(folder, UploadOptions(form, extend, None if form == "json" or extend else "a task"))
        except (DataError, ConfigError) as error:
            refused = str(error)
        assert name not in refused
        assert (folder / DATA).is_file() == (not refused)
        assert {path.name for path in folder.iterdir()} <= {DATA, SAMPLE}


def test_the_checked_data_is_what_was_sent(tmp_path: Path) -> None:
    sent = [
        {"name": "../../etc", "train": rows(FIRST), "test": rows(SECOND)[:0], "settings": {"module": {"rank": 2}}},
        {"name": "zweite 😀", "rows": rows(SECOND), "template": "{text}!{slot}"},
    ]
    (tmp_path / "upload.json").write_text(json.dumps({"tasks": sent}))
    found = check_upload(tmp_path, UploadOptions("json", seed=3))
    assert found == CheckedUpload(("../../etc", "zweite 😀"), ())
    first, second = read_tasks(tmp_path / DATA)
    assert (first.test, first.settings, second.template) == ((), {"module": {"rank": 2}}, "{text}!{slot}")
    assert len(first.train) + len(first.validation) == len(FIRST.train)
    assert len(second.train) + len(second.validation) + len(second.test) == len(SECOND.train)
    assert {one.input_key for one in first.train} <= {one.input_key for one in FIRST.train}
    assert [task.labels for task in read_tasks(tmp_path / SAMPLE)] == [FIRST.labels, SECOND.labels]

    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "upload.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows(FIRST)))
    assert check_upload(tmp_path, UploadOptions("jsonl", extend=True)) == CheckedUpload((), FIRST.labels)
    assert read_examples(tmp_path / DATA).train == FIRST.train


def test_many_wrong_rows_of_many_tasks_are_named_by_task(tmp_path: Path) -> None:
    same = [{"text": f"a {number}", "label": f"same-{number % 2}"} for number in range(5)]
    sent = [{"name": f"t{number}", "rows": same} for number in range(250)]
    (tmp_path / "upload.json").write_text(json.dumps({"tasks": sent}))
    with pytest.raises(DataError, match="the upload: 1,245 problems in 249 files") as caught:
        read_upload(tmp_path, UploadOptions("json"))
    problems = caught.value.problems
    assert len(problems) == 1000
    assert {problem.file for problem in problems[:55]} == {f"task 't{number}' (train)" for number in range(1, 12)}
    assert "belongs to the earlier task 't0'" in problems[0].reason
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("limit", [1 << 20, 4 << 20, 64 << 20])
def test_parquet_is_read_under_any_limit_of_memory(limit: int, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(FIRST)), tmp_path / "upload.parquet")
    assert check_upload(tmp_path, UploadOptions("parquet", name="n", limit=limit)).tasks == ("n",)


@pytest.mark.parametrize(("size", "refused"), [(3, False), (300, True)])
def test_the_limit_holds_after_decompression(size: int, refused: bool, tmp_path: Path) -> None:
    text = "".join(f"{json.dumps({'text': f'{number} word', 'label': number % 2})}\n" for number in range(10 * size))
    (tmp_path / "upload.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    options = UploadOptions("jsonl.gz", name="n", limit=2000)
    if not refused:
        assert check_upload(tmp_path, options).tasks == ("n",)
        return
    with pytest.raises(DataError, match=r"more than 2,000 bytes when decompressed"):
        check_upload(tmp_path, options)
