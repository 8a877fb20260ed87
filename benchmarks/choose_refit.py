"""Should the classifiers that answer learn from validation examples, too? On training examples that no benchmark uses.

The default learner on the training and validation examples of benchmarks/accuracy.yaml, asked about up to 30 others per
label of the same files: with the classifiers that everything was calibrated on, with class means of training and
validation examples, and with a logistic regression trained on both as well. Beside accuracy: the mean log loss of the
scores, and how often answer or candidates contain the right label where `refusal.coverage` promises 90%.

    python benchmarks/choose_refit.py [--backbone minilm-l6] [--frozen-layers 4] [--data hwu64,...]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy_data import EXPERIMENT
from choose_last_weight import CHUNK, paired, unused
from provenance import provenance, write_result

from conpet import ConPET
from conpet.bench.experiment import Experiment
from conpet.bench.run import read_source, stream_of_run
from conpet.data import Example
from conpet.heads.labels import indices_of
from conpet.state.live import Live
from conpet.state.refusal import judge
from conpet.state.slots import REFIT
from conpet.state.state import State

COVERAGE = 0.9
"""Promised share of answers or candidate lists with the right label."""


def main() -> None:
    experiment = Experiment.read(EXPERIMENT)
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default=experiment.backbone)
    parser.add_argument("--frozen-layers", type=int, default=4)
    parser.add_argument("--data", default=",".join(experiment.data))
    chosen = parser.parse_args()
    made_by = provenance()
    runs = {run.data: run for run in experiment.runs("accuracy") if run.order == 0 and run.learner == "dynamic"}
    results: dict[str, Any] = {}
    for data in chosen.data.split(","):
        stream = list(stream_of_run(runs[data], read_source(data, ())))
        asked = unused(data, [one for task in stream for one in task.train])
        given = {
            **runs[data].given,
            "backbone": {"name": chosen.backbone, "frozen_layers": chosen.frozen_layers},
            "refusal": {"coverage": COVERAGE},
        }
        with tempfile.TemporaryDirectory() as folder, ConPET.create(Path(folder) / "workspace", **given) as workspace:
            for task in stream:
                workspace.learn(task, evaluate=False, gate=False)
            live = workspace.live.now()
            means = {slot: shared for slot, shared in live.state.shared.items() if slot != REFIT}
            states = {
                "no": live.state,
                "class means": replace(live.state.refitted, shared=means, fits={}),
                "both": live.state.refitted,
            }
            answered = {rule: answers(live, state, asked) for rule, state in states.items()}
        results[data] = {"asked": len(asked)} | {
            rule: paired(one["right"], answered["no"]["right"])
            | {"log_loss": float(one["log_loss"].mean()), "covered": float(one["covered"].mean())}
            for rule, one in answered.items()
        }
        print(chosen.backbone, data, results[data], flush=True)
    print(write_result(f"refit-{chosen.backbone}", {"backbone": chosen.backbone, "data": results}, made_by))


def answers(live: Live, state: State, asked: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Return whether each example is answered rightly, its log loss, and whether its label is among those given."""
    kind = asked[0].kind
    found: dict[str, list[torch.Tensor]] = {"right": [], "log_loss": [], "covered": []}
    for chunk in (asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)):
        truth = indices_of([str(one.label) for one in chunk], state.classes)
        inputs = live.method.encode(state, chunk, kind, keep=False)
        scores = live.method.score(state, inputs, kind).classes
        choices = [verdict.choice for verdict in judge(live.method, state, inputs, kind, scores)]
        given = [
            {answer} if choice.decision == "answer" else set(choice.columns)
            for answer, choice in zip(scores.argmax(dim=1).tolist(), choices, strict=True)
        ]
        covered = [column in columns for column, columns in zip(truth.tolist(), given, strict=True)]
        found["right"].append(scores.argmax(dim=1) == truth)
        found["log_loss"].append(-scores.gather(1, truth.unsqueeze(1)).squeeze(1).clamp(min=-20).double())
        found["covered"].append(torch.tensor(covered, dtype=torch.float64))
    return {name: torch.cat(parts) for name, parts in found.items()}


if __name__ == "__main__":
    main()
