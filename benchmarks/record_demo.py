"""Record the results of a finished demo from the history of its workspace.

conpet demo --workspace demo-workspace
python benchmarks/record_demo.py demo-workspace
"""

from __future__ import annotations

import argparse
from pathlib import Path

from provenance import provenance, write_result

from conpet.commands.report import report_data
from conpet.report.text import wilson_interval
from conpet.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    made_by = provenance()
    data = report_data(Store.open(parser.parse_args().workspace))
    last = data.events[-1]
    correct = sum(score.correct for score in last.scores.values())
    total = sum(score.total for score in last.scores.values())
    result = {
        "data": "CLINC150: 10 domains as 10 tasks, 20 training and 5 validation examples an intent, full test set",
        "runs": "one order (that of the demo), one seed",
        "whole_accuracy_interval_95_over_examples": wilson_interval(correct, total),
        "seconds": sum(event.total_cost.seconds for event in data.events),
        "summary": data.summary,
        "report": data.model_dump(mode="json", exclude={"summary", "tasks"}),
    }
    print(write_result("demo", result, made_by))


if __name__ == "__main__":
    main()
