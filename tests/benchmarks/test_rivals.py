"""Settings of rivals are chosen on validation examples, stage by stage."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("rivals")


def test_stages_start_from_the_best_before_and_see_validation_examples_only(
    rivals: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {(1, 10): 2, (2, 10): 3, (1, 20): 4, (2, 20): 1}  # of four; (1, 20) is better, but not on the path
    one = rivals.Rivals.__new__(rivals.Rivals)
    one.data = {"hwu64": SimpleNamespace(validation=[SimpleNamespace(label="a")] * 4)}  # no test examples at all

    def trained(data: str, rival: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        hits = right[settings["rate"], settings["epochs"]]
        return {"predicted": {"validation": ["a"] * hits + ["b"] * (4 - hits)}}

    monkeypatch.setattr(one, "trained", trained)
    stages = [(("hwu64",), {"rate": [1, 2], "epochs": [10]}), (("hwu64",), {"epochs": [10, 20]})]
    monkeypatch.setitem(rivals.GRID, "fine-tuning", stages)
    best, tried = one.chosen("fine-tuning")
    assert best == {"rate": 2, "epochs": 10}
    assert [[run["mean"] for run in stage] for stage in tried] == [[0.5, 0.75], [0.75, 0.25]]


def test_of_equals_the_first_is_taken(rivals: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rivals.Rivals.__new__(rivals.Rivals)
    one.data = {"hwu64": SimpleNamespace(validation=[SimpleNamespace(label="a")])}
    monkeypatch.setattr(one, "trained", lambda *_: {"predicted": {"validation": ["a"]}})
    monkeypatch.setitem(rivals.GRID, "setfit", [(("hwu64",), {"steps": [3, 1, 2]})])
    assert one.chosen("setfit")[0] == {"steps": 3}


def test_settings_chosen_once_stay(rivals: ModuleType, tmp_path: Path) -> None:
    assert rivals.chosen_before("setfit", tmp_path) is None
    (tmp_path / "rivals" / "hwu64").mkdir(parents=True)
    stages = [[{"settings": {"steps": 3}, "mean": 0.5}]]
    (tmp_path / "rivals" / "hwu64" / "setfit.json").write_text(json.dumps({"settings": {"steps": 3}, "choice": stages}))
    assert rivals.chosen_before("setfit", tmp_path) == ({"steps": 3}, stages)
    assert rivals.chosen_before("fine-tuning", tmp_path) is None


def test_an_epoch_has_every_example_once(rivals: ModuleType) -> None:
    fine_tuning = importlib.import_module("fine_tuning")
    texts = ["word " * (i % 7) for i in range(50)]
    parts = fine_tuning.batches(texts, 4, random.Random(0))
    assert sorted(i for part in parts for i in part) == list(range(50))
    assert max(map(len, parts)) == 4
