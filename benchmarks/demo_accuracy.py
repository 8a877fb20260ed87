"""The demo's stream over seeds and orders of the tasks: whole accuracy beside the best closed form, and the cost.

    python benchmarks/demo_accuracy.py [--runs 3]

A run's seed decides the modules' first weights and the order of examples; from the second run on also the order of
the tasks. Settings are the defaults, which were chosen on validation examples. Finished runs are kept: run it again
after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from intervals import STUDENT_95, summarise
from provenance import RESULTS, provenance, write_result

from conpet import ConPET, TaskStream
from conpet.demo.stream import demo_stream
from conpet.workspace.reporting import report_data

NAME = "demo_accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, choices=sorted(STUDENT_95))
    runs = parser.parse_args().runs
    made_by = provenance()
    partial = RESULTS / f".{NAME}.partial.json"
    done: list[dict[str, Any]] = json.loads(partial.read_text()) if partial.exists() else []
    for seed in range(len(done), runs):
        done.append(run(seed))
        RESULTS.mkdir(exist_ok=True)
        partial.write_text(json.dumps(done))
        print(json.dumps({key: done[-1][key] for key in ("seed", "whole_accuracy", "gain", "seconds")}), flush=True)
    summary = {key: summarise([one[key] for one in done]) for key in ("whole_accuracy", "best_reference", "gain")}
    print(json.dumps(summary, indent=1))
    print(write_result(NAME, {"data": "CLINC150, full test set", "summary": summary, "runs": done}, made_by))
    partial.unlink()


def run(seed: int) -> dict[str, Any]:
    """Learn the demo's stream once."""
    tasks = list(demo_stream())
    if seed:
        random.Random(seed).shuffle(tasks)
    with tempfile.TemporaryDirectory() as folder:
        learner = ConPET.create(Path(folder) / "w", seed=seed)
        reports = list(learner.learn_stream(TaskStream(tuple(tasks))))
        last = reports[-1]
        data = report_data(learner.store)
    assert last.evaluation is not None
    best = last.evaluation.best_reference
    whole = last.evaluation.whole_accuracy
    assert best is not None
    assert whole is not None
    return {
        "seed": seed,
        "order": [task.name for task in tasks],
        "test_examples": sum(len(task.test) for task in tasks),
        "whole_accuracy": whole,
        "best_reference": best[1],
        "best_reference_name": best[0],
        "gain": whole - best[1],
        "average_accuracy": last.evaluation.average_accuracy,
        "selector_accuracy": last.evaluation.selector_accuracy,
        "within_task_accuracy": last.evaluation.within_task_accuracy,
        "forgetting": last.forgetting,
        "backward_transfer": last.backward_transfer,
        "references": {name: tally.accuracy for name, tally in last.evaluation.references.items()},
        "accuracy_matrix": [
            {task: score.accuracy for task, score in event.scores.items()} for event in data.events if event.scores
        ],
        "seconds": sum(report.seconds for report in reports),
        "seconds_by_task": [{stage.stage: stage.seconds for stage in report.cost} for report in reports],
        "trainable_parameters": last.trainable_parameters,
        "head_parameters": last.head_parameters,
        "backbone_parameters": last.backbone_parameters,
        "bytes_stored": last.bytes_stored,
        "settings": learner.settings.model_dump(mode="json"),
    }


if __name__ == "__main__":
    main()
