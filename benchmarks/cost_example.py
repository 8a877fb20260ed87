"""What do answers cost with another method, and with another schedule of updates?

The figures are in docs/how-to/cost.md.

python benchmarks/cost_example.py             everything
python benchmarks/cost_example.py dynamic     this method only; the rest of the result stays

Five domains of CLINC150 with 15 intents each, `minilm-l6`, 20 training, 10 validation and 10 test examples of an
intent. A domain is needed every 30 days. "As needed" learns each domain 2 days after that; "all at the end" learns all
of them in one change, 152 days after the first was needed. Prices are assumptions, written into the result. Time is
processor time, so it depends little on what else the machine does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from provenance import RESULTS, provenance, write_result

from conpet import ConPET, Task
from conpet.backbone.load import find_folder
from conpet.data.benchmarks import read_data
from conpet.data.labelled import PerLabel
from conpet.data.recipe import StreamRecipe
from conpet.evaluation.cost_report import CostReport

DATA, TASKS, PER_LABEL = "clinc150", 5, PerLabel(20, 10, 10)
METHODS = ("logistic", "dynamic")
DAYS_BETWEEN, DAYS_TO_LEARN = 30, 2
ANSWERS = 50_000
"""Answers of the whole time, with any schedule."""
REVIEW_MINUTES = 30
"""People's work for each change."""
PRICES = {
    "currency": "EUR",
    "cpu_hour": 0.05,
    "gb_month": 0.1,
    "review_hour": 40.0,
    "wrong_answer": 0.5,
    "late_day": 2.0,
}
RESULT = "cost"


def main() -> None:
    wanted = sys.argv[1:] or list(METHODS)
    path = RESULTS / f"{RESULT}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"methods": {}}
    made_by = provenance()
    tasks = list(StreamRecipe().stream_of(read_data(DATA, ()), PER_LABEL))[:TASKS]
    for method in wanted:
        result["methods"][method] = {
            "as needed": learned(method, tasks, [[task] for task in tasks]),
            "all at the end": learned(method, tasks, [tasks]),
        }
    result |= {
        "data": DATA,
        "tasks": TASKS,
        "per_label": [PER_LABEL.train, PER_LABEL.validation, PER_LABEL.test],
        "prices": PRICES,
        "answers": ANSWERS,
        "review_minutes": REVIEW_MINUTES,
        "days": [DAYS_BETWEEN, DAYS_TO_LEARN],
        "made_by": made_by,
    }
    write_result(RESULT, result, made_by)
    print(json.dumps(result["methods"], indent=1))


def learned(method: str, tasks: Sequence[Task], changes: Sequence[Sequence[Task]]) -> dict[str, Any]:
    """Learn tasks in some changes, each with the delay of its tasks, and answer all test inputs; return the costs."""
    today = datetime.now(UTC).date()
    end = len(tasks) * DAYS_BETWEEN + DAYS_TO_LEARN
    backbone = str(find_folder("minilm-l6"))
    with tempfile.TemporaryDirectory() as folder, without_cached_states(Path(folder)):
        workspace = ConPET.create(Path(folder) / "ws", backbone=backbone, method=method, seed=0)
        workspace.set_costs(prices={**PRICES, "answers": ANSWERS // len(changes)})
        for change in changes:
            late = [DAYS_TO_LEARN if len(change) == 1 else end - DAYS_BETWEEN * tasks.index(task) for task in change]
            mean = timedelta(days=round(sum(late) / len(late)))  # all tasks of a change have as many labels
            workspace.learn_batch(change, needed_since=today - mean, gate=False)
            workspace.add_review(REVIEW_MINUTES)
        workspace.predict([example.text for task in tasks for example in task.test])
        report = workspace.cost()
        workspace.close()
    return short(report)


@contextmanager
def without_cached_states(folder: Path) -> Iterator[None]:
    """Give the block a cache of its own, in which no earlier run has left states."""
    before = os.environ.get("CONPET_HOME")
    os.environ["CONPET_HOME"] = str(folder / "home")
    try:
        yield
    finally:
        del os.environ["CONPET_HOME"]
        if before is not None:
            os.environ["CONPET_HOME"] = before


def short(report: CostReport) -> dict[str, Any]:
    """Return what the page states of a report."""
    document = report.to_json()
    versions = [
        {key: each[key] for key in ("tasks", "accuracy", "tested", "late_days", "updates", "score")}
        for each in document["versions"]
    ]
    kinds = {line["name"]: line for line in document["kinds"]}
    keys = ("money", "kwh", "answers", "per_thousand_answers", "accuracy", "per_point_of_accuracy", "score")
    return {
        **{key: document[key] for key in keys},
        "kinds": {
            name: {
                "money": line["money"],
                "examples": line["examples"],
                **{
                    key: line["resources"][key]
                    for key in ("cpu_seconds", "frozen_tokens", "module_tokens", "bytes_added")
                },
            }
            for name, line in kinds.items()
            if line["examples"] or line["operations"]
        },
        "alternatives": document["alternatives"],
        "versions": versions,
    }


if __name__ == "__main__":
    main()
