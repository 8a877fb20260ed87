from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import conpet.demo
from conpet.data import TaskStream, read_stream
from conpet.demo.stream import LIVE_EXAMPLES, TASK_NAMES, demo_stream, write_demo_stream
from conpet.errors import DataError

PACKAGE = Path(next(iter(conpet.demo.__path__))).parent


@pytest.fixture(scope="module")
def stream() -> TaskStream:
    return demo_stream()


def normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def test_ten_departments_in_the_documented_order(stream: TaskStream) -> None:
    assert [task.name for task in stream] == list(TASK_NAMES)
    assert [len(task.labels) for task in stream] == [15] * 10
    assert len({label for task in stream for label in task.labels}) == 150
    assert "report_fraud" in stream[0].labels


def test_every_intent_has_its_full_share_of_examples(stream: TaskStream) -> None:
    for task in stream:
        for examples, number in ((task.train, 20), (task.validation, 5), (task.test, 30)):
            assert Counter(example.label for example in examples) == dict.fromkeys(task.labels, number)


def test_no_input_stands_in_two_subsets_of_whatever_tasks(stream: TaskStream) -> None:
    subsets = [
        {normalised(example.text) for task in stream for example in getattr(task, subset)}
        for subset in ("train", "validation", "test")
    ]
    assert [len(subset) for subset in subsets] == [3000, 750, 4500]
    assert len(set.union(*subsets)) == 8250


def test_live_examples_are_new_and_the_last_belongs_to_no_task(stream: TaskStream) -> None:
    known = {normalised(example.text) for task in stream for example in (*task.train, *task.validation, *task.test)}
    labels = {label for task in stream for label in task.labels}
    assert not known & {normalised(example.text) for example in LIVE_EXAMPLES}
    assert {example.label for example in LIVE_EXAMPLES[:-1]} <= labels
    assert LIVE_EXAMPLES[-1].label is None


def test_written_folder_is_the_same_stream(stream: TaskStream, tmp_path: Path) -> None:
    folder = write_demo_stream(tmp_path / "clinc150")
    written = read_stream(folder)
    assert written == stream
    assert [task.digest for task in written] == [task.digest for task in stream]
    assert "Attribution 3.0" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Larson" in (folder / "SOURCE.md").read_text(encoding="utf-8")


def test_writing_again_adds_what_is_missing_and_never_overwrites(tmp_path: Path) -> None:
    folder = write_demo_stream(tmp_path)
    (folder / "meta" / "test.jsonl").unlink()
    write_demo_stream(folder)
    assert len((folder / "meta" / "test.jsonl").read_text(encoding="utf-8").splitlines()) == 450
    mine = folder / "travel" / "train.jsonl"
    mine.write_text('{"text": "mine", "label": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"other data.*(\n.*)*travel.train\.jsonl"):
        write_demo_stream(folder)
    assert mine.read_text(encoding="utf-8").startswith('{"text": "mine"')


def test_is_read_from_a_zipped_package_as_well(tmp_path: Path) -> None:
    archive = tmp_path / "conpet.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in PACKAGE.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, Path("conpet") / path.relative_to(PACKAGE))
    code = "import conpet.demo.stream as s; print(s.__file__, len(s.demo_stream()[9].test))"
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "conpet.zip" in printed.stdout
    assert printed.stdout.endswith(" 450\n")
