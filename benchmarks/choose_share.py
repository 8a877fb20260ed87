"""Which share of a consolidation's LoRA should be folded in? On training examples that no benchmark uses.

The first order of benchmarks/accuracy.yaml is learned by `dynamic` and consolidated with several shares; the LoRA is
trained once. Asked about up to 30 examples per label of the same training files, with no validation or test example.

    python benchmarks/choose_share.py [--backbone mpnet-base] [--data hwu64,...]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accuracy_data import EXPERIMENT
from choose_last_weight import ASKED, paired, unused
from provenance import RESULTS, provenance, write_result
from torch import Tensor

from conpet import ConPET, Example
from conpet.bench.experiment import Experiment
from conpet.bench.run import read_source, stream_of_run
from conpet.commands.tuned import TunedBackbones

SHARES = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="minilm-l6")
    parser.add_argument("--data", default="clinc150,banking77,hwu64,fewrel80,fewnerd53,semeval2010_task8")
    chosen = parser.parse_args()
    made_by = provenance()
    name = f"share-{chosen.backbone}"
    file = RESULTS / f"{name}.json"
    results: dict[str, Any] = json.loads(file.read_text("utf-8"))["data"] if file.exists() else {}
    runs = {run.data: run for run in Experiment.read(EXPERIMENT).runs("accuracy") if run.learner == "dynamic"}
    for data in chosen.data.split(","):
        run = runs[data]
        stream = stream_of_run(run, read_source(data, ()))
        asked = unused(data, [example for task in stream for example in task.train])
        given = run.given if chosen.backbone == run.backbone else {**run.given, "backbone": chosen.backbone}
        right = right_by_share(given, stream, asked)
        results[data] = {"examples": len(asked)} | {rule: paired(rows, right["1"]) for rule, rows in right.items()}
        print(data, results[data], flush=True)
        print(write_result(name, {"asked_per_label": ASKED, "backbone": chosen.backbone, "data": results}, made_by))


def right_by_share(given: Mapping[str, Any], stream: Any, asked: Sequence[Example]) -> dict[str, Tensor]:
    """Return which examples are answered rightly `[n]` without a consolidation ("none") and with each share."""
    tuned = TunedBackbones()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        with ConPET.create(plain, **given) as workspace:
            for task in stream:
                workspace.learn(task, evaluate=False, gate=False)
            right = {"none": answered(workspace, asked)}
        for share in SHARES:
            copy = Path(folder) / f"{share:g}"
            shutil.copytree(plain, copy)
            with ConPET.open(copy) as workspace:
                workspace.consolidate(bound=100, settings={"share": share}, tuned=tuned, evaluate=False, gate=False)
                right[f"{share:g}"] = answered(workspace, asked)
    return right


def answered(workspace: ConPET, asked: Sequence[Example]) -> Tensor:
    """Return which examples are answered rightly `[n]`."""
    answers = workspace.predict(list(asked))
    return torch.tensor([answer.label == one.label for answer, one in zip(answers, asked, strict=True)])


if __name__ == "__main__":
    main()
