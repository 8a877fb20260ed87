"""How deep must a module reach? Joint accuracy with 10, 20, 50 and 100% of SmolLM2's layers adapted.

    python benchmarks/depth.py [--seeds 1]

All labels are learned at once, so that neither forgetting nor selection hides what depth does. Judged on test examples;
nothing is chosen here. Finished runs are kept: run it again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from intervals import STUDENT_95, summarise
from provenance import RESULTS, provenance, write_result
from streams import stream

from conpet import ConPET, Task
from conpet.report.text import wilson_interval

NAME = "depth"
SHARES = (0.1, 0.2, 0.5, 1.0)
LAYERS = 30
DATA: dict[str, dict[str, Any]] = {
    "clinc150": {"tasks": 2, "per_label": {"train": 8, "validation": 5, "test": 15}},
    "fewrel80": {"tasks": 2, "per_label": {"train": 10, "validation": 6, "test": 20}},
}
SETTINGS = {"backbone": "smollm2-135m", "method": "joint", "batch_size": 16, "epochs": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1, choices=[1, *sorted(STUDENT_95)])
    seeds = parser.parse_args().seeds
    made_by = provenance()
    partial = RESULTS / f".{NAME}.partial.json"
    done: dict[str, dict[str, Any]] = json.loads(partial.read_text()) if partial.exists() else {}
    for seed in range(seeds):
        for data in DATA:
            for share in SHARES:
                key = f"{data}/{share}/{seed}"
                if key not in done:
                    done[key] = measured(data, share, seed)
                    partial.write_text(json.dumps(done))
                    print(key, done[key], flush=True)
    summary = {
        data: {
            str(share): {
                figure: summarise([done[f"{data}/{share}/{seed}"][figure] for seed in range(seeds)])
                for figure in ("accuracy", "seconds")
            }
            for share in SHARES
        }
        for data in DATA
    }
    result = {"data": DATA, "settings": SETTINGS, "layers": LAYERS, "seeds": seeds, "summary": summary, "runs": done}
    print(write_result(NAME, result, made_by))
    partial.unlink()


def measured(data: str, share: float, seed: int) -> dict[str, Any]:
    """Learn the labels of some tasks at once with the top share of the layers adapted."""
    some = stream(data, DATA[data]["per_label"])[: DATA[data]["tasks"]]
    task = Task(
        "all",
        train=tuple(example for one in some for example in one.train),
        test=tuple(example for one in some for example in one.test),
    )
    with tempfile.TemporaryDirectory() as folder:
        split = LAYERS - round(share * LAYERS)
        learner = ConPET.create(Path(folder) / "w", split=split, seed=seed, **SETTINGS)
        report = learner.learn(task)
    assert report.evaluation is not None
    accuracy = report.evaluation.whole_accuracy
    assert accuracy is not None
    return {
        "accuracy": accuracy,
        "interval_95_over_examples": wilson_interval(round(accuracy * len(task.test)), len(task.test)),
        "seconds": next(stage.seconds for stage in report.cost if stage.stage == "module"),
        "labels": report.labels,
        "test_examples": len(task.test),
        "references": {name: tally.accuracy for name, tally in report.evaluation.references.items()},
    }


if __name__ == "__main__":
    main()
