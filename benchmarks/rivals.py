"""Measure what a practitioner would use instead: all retrained on everything seen, on the examples of accuracy.yaml.

- logistic regression on sentence embeddings of the frozen encoder (as in five_lines.py);
- SetFit: the encoder tuned by contrasting pairs of texts, then a logistic regression;
- fine-tuning of all weights with a linear head.

python benchmarks/rivals.py --setfit-python setfit-venv/bin/python

SetFit runs in an environment of its own, because it must not decide which transformers conpet runs with:

    python -m venv setfit-venv
    setfit-venv/bin/pip install torch==2.13.0
    setfit-venv/bin/pip install setfit==1.2.0 'transformers<5'

Settings are chosen on validation examples (GRID), with one seed, and then fixed for all data sets. Every training
run is kept in results/rivals/.running until its result file is written, so that the command continues where it was
interrupted; result files that exist are skipped. Test answers are scored when a result file is written, not before.
One thread; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from accuracy_data import Everything, everything
from fine_tuning import Settings, fine_tune
from five_lines import LAYERS, Encoder, normalised
from provenance import RESULTS, provenance, write_result
from sklearn.linear_model import LogisticRegression

from conpet.backbone.load import find_folder
from conpet.data import Example

ORDER = ("hwu64", "banking77", "clinc150")
SUBSETS = ("validation", "test")
GRID: dict[str, list[tuple[tuple[str, ...], dict[str, list[Any]]]]] = {
    "logistic-regression": [(ORDER, {"features": list(LAYERS), "inverse_strength": [30.0]})],
    "setfit": [
        (("hwu64",), {"steps": [500, 1000], "learning_rate": [2e-5], "inverse_strength": [30.0]}),
        (("hwu64",), {"learning_rate": [2e-5, 1e-4]}),
    ],
    "fine-tuning": [
        (("hwu64", "banking77"), {"epochs": [10], "learning_rate": [1e-4, 3e-4]}),
        (("hwu64",), {"epochs": [10, 20]}),
    ],
}
"""Settings to choose from, in stages: the data sets whose mean validation accuracy decides, and what is varied.

Each stage starts from the best of the stage before it; of equals, the first one is taken."""
WORKER = Path(__file__).with_name("setfit_worker.py")
RUNNING = RESULTS / "rivals" / ".running"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--setfit-python", type=Path, help="the interpreter of an environment that has SetFit")
    parser.add_argument("--seeds", type=int, default=1, help="training runs for the final figures")
    parser.add_argument("--data", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--rival", nargs="+", choices=list(GRID), default=list(GRID))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rivals = Rivals(asked.setfit_python)
    for data in asked.data:
        for rival in asked.rival:
            if rival == "setfit" and asked.setfit_python is None:
                print("setfit: left out without --setfit-python")
            elif (RESULTS / "rivals" / data / f"{rival}.json").exists():
                print(data, rival, "exists")
            else:
                print(rivals.measure(data, rival, range(1, asked.seeds + 1)))


class Rivals:
    """Trains rivals, or takes up what an earlier command trained."""

    def __init__(self, setfit_python: Path | None) -> None:
        self.made_by = provenance()
        self.setfit_python = setfit_python
        self.backbone, self.data = everything()
        self.folder = find_folder(self.backbone)

    def measure(self, data: str, rival: str, seeds: Iterable[int]) -> Path:
        """Choose settings and write the result file of a rival on a data set."""
        settings, stages = self.chosen(rival)
        runs = [self.trained(data, rival, settings, seed) for seed in seeds]
        for run in runs:
            answers = run.pop("predicted")
            run |= {f"{subset}_accuracy": self.accuracy(data, subset, answers[subset]) for subset in SUBSETS}
        examples = self.data[data]
        result = {
            "data": data,
            "rival": rival,
            "backbone": self.backbone,
            "tasks": examples.tasks,
            "examples": {subset: len(getattr(examples, subset)) for subset in ("train", *SUBSETS)},
            "settings": settings,
            "choice": stages,
            "runs": runs,
        }
        return write_result(f"rivals/{data}/{rival}", result, self.made_by)

    def chosen(self, rival: str) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
        """Return the best settings on validation examples, and the accuracy of all that were tried, by stage.

        The choice of an earlier result file stands.
        """
        for earlier in sorted((RESULTS / "rivals").glob(f"*/{rival}.json")):
            result = json.loads(earlier.read_text(encoding="utf-8"))
            return result["settings"], result["choice"]
        best: dict[str, Any] = {}
        stages = []
        for data_sets, varied in GRID[rival]:
            tried: list[dict[str, Any]] = []
            for settings in combinations(best | varied):
                answers = {data: self.trained(data, rival, settings, 1)["predicted"] for data in data_sets}
                found = {data: self.accuracy(data, "validation", one["validation"]) for data, one in answers.items()}
                tried.append({"settings": settings, "validation_accuracy": found, "mean": mean(found.values())})
                print(rival, tried[-1], flush=True)
            best = max(tried, key=lambda one: float(one["mean"]))["settings"]
            stages.append(tried)
        return best, stages

    def accuracy(self, data: str, subset: str, answers: list[str]) -> float:
        return mean(float(one.label == answer) for one, answer in zip(self.of(data, subset), answers, strict=True))

    def of(self, data: str, subset: str) -> list[Example]:
        found: list[Example] = getattr(self.data[data], subset)
        return found

    def trained(self, data: str, rival: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        """Train once on everything and answer the validation and test examples."""
        name = json.dumps([rival, settings, seed], sort_keys=True)
        path = RUNNING / f"{data}-{rival}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"
        if not path.exists():
            train = {
                "logistic-regression": self._logistic_regression,
                "setfit": self._setfit,
                "fine-tuning": self._fine_tuning,
            }[rival]
            started = {"commit": self.made_by["commit"], "load_before": os.getloadavg()[0]}
            run = {"seed": seed, **started, **train(self.data[data], settings, seed)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(run), encoding="utf-8")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _logistic_regression(self, examples: Everything, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        encoder, layers = Encoder(self.backbone), LAYERS[settings["features"]]
        classifier = LogisticRegression(C=settings["inverse_strength"], max_iter=1000, random_state=seed)

        def features(some: list[Example]) -> Any:
            states = encoder(some)
            return np.concatenate([normalised(states[layer]) for layer in layers], axis=1)

        watch = Watch()
        known = features(examples.train)
        encoded = watch.seconds("encode_train")
        watch = Watch()
        classifier.fit(known, [one.label for one in examples.train])
        fitted = watch.seconds("fit")
        train = {f"train{end}": encoded[f"encode_train{end}"] + fitted[f"fit{end}"] for end in Watch.ENDS}
        predicted = {}
        for subset in SUBSETS:
            watch = Watch()
            predicted[subset] = classifier.predict(features(getattr(examples, subset))).tolist()
        return {**train, **fitted, "encode_seconds": watch.seconds("")["_seconds"], "predicted": predicted}

    def _fine_tuning(self, examples: Everything, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        texts = [one.text for one in examples.train]
        labels = [str(one.label) for one in examples.train]
        watch = Watch()
        model = fine_tune(self.folder, texts, labels, Settings(**settings), seed)
        train = watch.seconds("train")
        predicted = {}
        for subset in SUBSETS:
            watch = Watch()
            predicted[subset] = model.predict([one.text for one in getattr(examples, subset)])
        return {**train, "encode_seconds": watch.seconds("")["_seconds"], "predicted": predicted}

    def _setfit(self, examples: Everything, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        question = {
            "folder": str(self.folder),
            "texts": [one.text for one in examples.train],
            "labels": [one.label for one in examples.train],
            "asked": {subset: [one.text for one in getattr(examples, subset)] for subset in SUBSETS},
            "seed": seed,
            **settings,
        }
        offline = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryDirectory() as scratch:
            asked, answer = Path(scratch) / "asked.json", Path(scratch) / "answer.json"
            asked.write_text(json.dumps(question), encoding="utf-8")
            command = [str(self.setfit_python), str(WORKER), str(asked), str(answer)]
            done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"SetFit failed:\n{done.stderr}")
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


class Watch:
    """Seconds since it was made, on the clock and of the processor."""

    ENDS = ("_seconds", "_cpu_seconds")

    def __init__(self) -> None:
        self.start = (time.perf_counter(), time.process_time())

    def seconds(self, name: str) -> dict[str, float]:
        now = (time.perf_counter(), time.process_time())
        return {f"{name}{end}": b - a for end, a, b in zip(self.ENDS, self.start, now, strict=True)}


def combinations(varied: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all combinations of the values that are lists."""
    found: list[dict[str, Any]] = [{}]
    for key, values in varied.items():
        options = values if isinstance(values, list) else [values]
        found = [{**one, key: value} for one in found for value in options]
    return found


if __name__ == "__main__":
    main()
