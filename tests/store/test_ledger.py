"""The ledger on disk."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from conpet.cost import Meter, Resources, Spent
from conpet.errors import CorruptionError
from conpet.store import CostKind, CostSource, Ledger, LedgerEntry
from conpet.store.ledger import LEDGER, hour_of
from conpet.store.usage import Usage
from conpet.types import Prediction
from tests.helpers.permissions import public_folder, reading_only

HOUR = datetime(2026, 11, 2, 9, tzinfo=UTC)
LEARNED = LedgerEntry(
    HOUR + timedelta(minutes=20),
    CostKind.LEARN,
    "learn",
    CostSource.JOB,
    task="cards",
    generation=2,
    examples=40,
    resources=Resources(seconds=2.5, cpu_seconds=4.0, frozen_tokens=100, module_tokens=50, trained_tokens=50, steps=5),
    new_labels=3,
    needed_since=date(2026, 10, 30),
    suffix_share=0.25,
    bytes_stored=1000,
    job="a1",
    note="",
)
ANSWERS = LedgerEntry(
    HOUR,
    CostKind.PREDICT,
    "predict",
    CostSource.SERVER,
    generation=2,
    examples=3,
    resources=Resources(seconds=0.3, cpu_seconds=0.5, frozen_tokens=30),
    suffix_share=0.25,
    tasks={"cards": 2, "loans": 1},
    decisions={"answer": 2, "decline": 1},
)


def test_entries_come_back_as_they_were_added(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.entries() == []
    assert not (tmp_path / LEDGER).exists()
    assert ledger.add([LEARNED])
    assert ledger.add([replace(LEARNED, outcome="refused", needed_since=None)])
    assert Ledger(tmp_path).entries() == [LEARNED, replace(LEARNED, outcome="refused", needed_since=None)]


def test_answers_of_an_hour_are_added_up_from_any_process(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    threads = [threading.Thread(target=ledger.add_answers, args=([ANSWERS],)) for ledger in (one, other) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    later = replace(ANSWERS, time=HOUR + timedelta(hours=1))
    assert one.add_answers([later, replace(ANSWERS, generation=3)])
    together, *rest = sorted(one.entries(), key=lambda entry: -entry.examples)
    assert together.examples == 30
    assert together.tasks == {"cards": 20, "loans": 10}
    assert together.decisions == {"answer": 20, "decline": 10}
    assert together.resources.frozen_tokens == 300
    assert together.resources.cpu_seconds == pytest.approx(5)
    assert [entry.examples for entry in rest] == [3, 3]


def test_who_may_not_write_records_nothing_and_is_not_stopped() -> None:
    with public_folder() as folder:
        ledger = Ledger(folder)
        with reading_only(folder):
            assert not ledger.add([LEARNED])
        assert ledger.add([LEARNED])
        with reading_only(folder):
            assert not ledger.add_answers([ANSWERS])
            assert ledger.entries() == [LEARNED]


def test_a_damaged_ledger_stops_no_operation_and_is_named(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(b"no database, but long enough to be read as one" * 40)
    ledger = Ledger(tmp_path)
    assert not ledger.add([LEARNED])
    with pytest.raises(CorruptionError, match=LEDGER):
        ledger.entries()


def usage(folder: Path) -> Usage:
    counted = Usage(Ledger(folder), CostSource.LOCAL)
    counted.answered([Prediction("a", 0.9, "cards", 1, generation=4), Prediction("a", 0.9, "cards", 1)])
    counted.spent(4, Spent(1.0, 2.0), Meter(tokens=10, module_tokens=4, cached_tokens=6), suffix_share=0.5, gpu=True)
    return counted


def test_answers_of_a_process_are_written_with_what_they_cost(tmp_path: Path) -> None:
    counted = usage(tmp_path)
    assert not counted.due
    assert Ledger(tmp_path).entries() == []
    counted.flush()
    counted.flush()
    (entry,) = Ledger(tmp_path).entries()
    assert entry.time == hour_of(datetime.now(UTC))
    assert (entry.generation, entry.examples, entry.tasks) == (
        4,
        1,
        {"cards": 1},
    )  # of the other, no generation is kept
    used = entry.resources
    assert (used.seconds, used.cpu_seconds, used.gpu_seconds) == (1.0, 2.0, 1.0)
    assert (used.frozen_tokens, used.module_tokens, used.cached_tokens) == (6, 4, 6)


def test_a_forked_process_does_not_count_the_answers_of_its_parent(tmp_path: Path) -> None:
    counted = usage(tmp_path)
    child = os.fork()
    if not child:
        counted.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert Ledger(tmp_path).entries() == []
    counted.flush()
    assert [entry.examples for entry in Ledger(tmp_path).entries()] == [1]


def test_a_ledger_is_copied_with_its_workspace(tmp_path: Path) -> None:
    Ledger(tmp_path).add([LEARNED])
    copy = tmp_path.with_name("copy")
    shutil.copytree(tmp_path, copy)
    assert Ledger(copy).entries() == [LEARNED]
