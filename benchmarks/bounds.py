"""What bounds the accuracy of `dynamic`? On training examples that no benchmark uses.

The first order of benchmarks/accuracy.yaml is learned by `dynamic`. Then the same examples are answered by the
classifiers of frozen features alone; with the modules of the one, three or all most likely tasks; and with one module
that was trained on all labels at once, which knows every negative that a task's module could be trained against. The
fusion is fitted on the validation examples each time. Beside them: answers if the true task is known. Asked about up to
30 examples per label of the same training files, with no validation or test example.

    python benchmarks/bounds.py [--data hwu64,...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy_data import EXPERIMENT
from choose_last_weight import ASKED, CHUNK, paired, unused
from provenance import RESULTS, provenance, write_result
from torch import Tensor

from conpet import ConPET, Example
from conpet.bench.experiment import Experiment
from conpet.bench.run import read_source, stream_of_run
from conpet.fusion.base import Evidence
from conpet.fusion.calibrated import CalibratedFusion
from conpet.heads.labels import indices_of

MODULES = (0, 1, 3)
"""Numbers of modules that are run for each example, beside all of them."""
NAME = "bounds"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="clinc150,banking77,hwu64,fewrel80,fewnerd53,semeval2010_task8")
    chosen = parser.parse_args()
    made_by = provenance()
    file = RESULTS / f"{NAME}.json"
    results: dict[str, Any] = json.loads(file.read_text("utf-8"))["data"] if file.exists() else {}
    runs = {run.data: run for run in Experiment.read(EXPERIMENT).runs("accuracy") if run.learner == "dynamic"}
    for data in chosen.data.split(","):
        stream = stream_of_run(runs[data], read_source(data, ()))
        asked = unused(data, [example for task in stream for example in task.train])
        right = right_by_rule(runs[data].given, stream, asked)
        results[data] = {"examples": len(asked)} | {rule: paired(rows, right["1"]) for rule, rows in right.items()}
        print(data, results[data], flush=True)
        print(write_result(NAME, {"asked_per_label": ASKED, "backbone": runs[data].backbone, "data": results}, made_by))


def right_by_rule(given: Mapping[str, Any], stream: Any, asked: Sequence[Example]) -> dict[str, Tensor]:
    """Return which examples are answered rightly `[n]` by each rule."""
    held_out = [example for task in stream for example in task.validation]
    given = {**given, "selector": {"top_k": len(stream)}}  # all modules are run, and left out below
    with tempfile.TemporaryDirectory() as folder, ConPET.create(Path(folder) / "workspace", **given) as workspace:
        for task in stream:
            workspace.learn(task, evaluate=False, gate=False)
        classes = workspace.live.now().state.classes
        targets, truth = (indices_of([str(one.label) for one in part], classes) for part in (held_out, asked))
        fitted_on, answered = evidence_on(workspace, held_out), evidence_on(workspace, asked)

        def right(count: int | None) -> Tensor:
            fusion = CalibratedFusion().fit(with_modules(fitted_on, count), targets)
            return fusion.log_probabilities(with_modules(answered, count)).argmax(dim=1) == truth

        rules = {str(count): right(count) for count in MODULES} | {"all": right(None)}
        true_task = answered.owner[truth].unsqueeze(1)
        within = CalibratedFusion().fit(with_modules(fitted_on, 1), targets).log_probabilities(answered)
        others = answered.owner.unsqueeze(0) != true_task
        rules["task known"] = within.masked_fill(others, -torch.inf).argmax(dim=1) == truth
        for count in (1, 3):
            likeliest = answered.tasks.topk(min(count, answered.tasks.shape[1]), dim=1).indices
            rules[f"task among {count}"] = (likeliest == true_task).any(dim=1)
        workspace.merge([task.name for task in workspace.tasks], bound=100, evaluate=False, gate=False)
        fitted_on, answered = evidence_on(workspace, held_out), evidence_on(workspace, asked)
        rules["one module"] = right(None)
    return rules


def evidence_on(workspace: ConPET, examples: Sequence[Example]) -> Evidence:
    """Return the scores of classifiers, selector and all modules."""
    live = workspace.live.now()
    method: Any = live.method
    parts = [
        method._evidence(live.state, {None: method.backbone.states(chunk)}, chunk[0].kind)[0]
        for chunk in (examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK))
    ]
    return Evidence.joined(parts)


def with_modules(evidence: Evidence, count: int | None) -> Evidence:
    """Return the evidence with the modules of that many most likely tasks; None for all."""
    if count is None:
        return evidence
    ran = torch.zeros_like(evidence.tasks, dtype=torch.bool)
    ran.scatter_(1, evidence.tasks.topk(min(count, ran.shape[1]), dim=1).indices, True)
    return replace(evidence, modules=evidence.modules.masked_fill(~ran[:, evidence.owner], -torch.inf))


if __name__ == "__main__":
    main()
