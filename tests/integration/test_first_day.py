"""The exercise "First day": a new department is learned, and the gate stops the table whose labels slipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.api import ConPET
from conpet.data import read_task
from conpet.demo.exercise import write_exercise
from conpet.demo.stream import demo_stream
from conpet.errors import GateRefusedError

pytestmark = pytest.mark.integration


def test_the_gate_accepts_the_new_department_and_stops_the_slipped_labels(tmp_path: Path) -> None:
    folder = write_exercise(tmp_path / "files")
    banking, travel = (demo_stream()[place] for place in (0, 5))
    with ConPET.create(tmp_path / "workspace", backbone="minilm-l6", method="logistic") as workspace:
        for task in (banking, travel, read_task(folder / "library.csv")):
            workspace.learn(task, evaluate=False)
        answers = workspace.predict(["please extend the loan of my book", "why is my account locked"])
        assert [answer.label for answer in answers] == ["renew_book", "account_blocked"]
        with pytest.raises(GateRefusedError) as refused:
            workspace.learn(read_task(folder / "banking-slipped.csv", name="banking"), evaluate=False)
        assert "task 'banking'" in str(refused.value)
        assert workspace.predict(["why is my account locked"])[0].label == "account_blocked"
