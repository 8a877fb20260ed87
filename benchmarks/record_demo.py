"""Record the results of the demo from the history of its workspace.

python benchmarks/record_demo.py                   # run the demo in a new folder and record it
python benchmarks/record_demo.py demo-workspace    # record a finished demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from provenance import provenance, write_result

from conpet.demo.consolidation import consolidated, refusal, result_of_learning
from conpet.report.text import wilson_interval
from conpet.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", help="a finished demo; without it, run the demo first")
    made_by = provenance()
    workspace = parser.parse_args().workspace
    if workspace:
        record(workspace, made_by)
        return
    with TemporaryDirectory() as folder:
        workspace = Path(folder) / "demo-workspace"
        subprocess.run([sys.executable, "-m", "conpet", "demo", "--workspace", str(workspace)], check=True)
        record(workspace, made_by)


def record(workspace: Path, made_by: Mapping[str, Any]) -> None:
    """Write the result file from the history of a finished demo."""
    store = Store.open(workspace)
    data = result_of_learning(store)
    done, refused = consolidated(store), refusal(store)
    last = data.events[-1]
    correct = sum(score.correct for score in last.scores.values())
    total = sum(score.total for score in last.scores.values())
    result = {
        "data": "CLINC150: 10 domains as 10 tasks, 20 training and 5 validation examples an intent, full test set",
        "runs": "one order (that of the demo), one seed",
        "whole_accuracy_interval_95_over_examples": wilson_interval(correct, total),
        "seconds": sum(event.total_cost.seconds for event in data.events),
        "consolidation": done.to_json() if done else None,
        "consolidation_refused": asdict(refused) if refused else None,
        "summary": data.summary,
        "report": data.model_dump(mode="json", exclude={"summary", "tasks"}),
    }
    print(write_result("demo", result, made_by))


if __name__ == "__main__":
    main()
