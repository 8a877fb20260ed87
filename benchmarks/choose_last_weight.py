"""How much should the last layer weigh in the logistic regression? Text, on training examples that no benchmark uses.

Trained on the training examples of benchmarks/accuracy.yaml, asked about up to 30 others per label of the same files:
no validation or test example. All labels at once. The five lines of benchmarks/five_lines.py, with three layers, stand
beside it.

    python benchmarks/choose_last_weight.py [--backbones minilm-l6,mpnet-base] [--data hwu64,...]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from accuracy_data import everything
from five_lines import LAYERS, Encoder, normalised
from provenance import provenance, write_result
from sklearn.linear_model import LogisticRegression as FiveLines
from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.data import Example
from conpet.data.benchmarks import read_data
from conpet.data.labelled import by_label
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.heads.labels import indices_of

WEIGHTS = (1.0, 1.5, 2.0, 3.0, 4.0)
ASKED = 30
"""Most examples per label that measure accuracy."""
CHUNK = 256


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbones", default="minilm-l6")
    parser.add_argument("--data", default="clinc150,banking77,hwu64")
    chosen = parser.parse_args()
    made_by = provenance()
    default, found = everything()
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.backbones.split(","):
        backbone = Backbone(load_backbone(name, dtype="auto", device="cpu"))
        for data in chosen.data.split(","):
            train = found[data].train
            asked = unused(data, train)
            right = {f"{weight:g}": rows for weight, rows in by_weight(backbone, train, asked).items()}
            if name == default:
                right["five lines"] = five_lines(name, train, asked)
            results.setdefault(name, {})[data] = {"examples": len(asked)} | {
                rule: paired(rows, right["1"]) for rule, rows in right.items()
            }
            print(name, data, results[name][data], flush=True)
    print(write_result("last-weight", {"asked_per_label": ASKED, "backbones": results}, made_by))


def unused(data: str, train: Sequence[Example]) -> list[Example]:
    """Return examples of the training file that are neither trained on nor in another subset."""
    source = read_data(data, ())
    seen = {example.input_key for example in (*train, *source.validation, *source.test)}
    left = by_label([example for example in source.train if example.input_key not in seen], ASKED, 0)
    return [example for examples in left.values() for example in examples]


def by_weight(backbone: Backbone, train: Sequence[Example], asked: Sequence[Example]) -> dict[float, Tensor]:
    """Return which examples the logistic regression answers rightly, by the weight of the last block."""
    labels = sorted({str(example.label) for example in train})
    targets, truth = (indices_of([str(example.label) for example in examples], labels) for examples in (train, asked))
    learned, features = (features_of(backbone, examples) for examples in (train, asked))
    start = LogisticWeights.zero(learned.shape[1], labels)
    right = {}
    for weight in WEIGHTS:
        fitted = LogisticRegression().fit(learned, targets, start, block=backbone.hidden_size, last_weight=weight)
        right[weight] = fitted.logits(features).argmax(dim=1) == truth
    return right


def features_of(backbone: Backbone, examples: Sequence[Example]) -> Tensor:
    """Return the frozen features `[n, F]`."""
    chunks = [examples[first : first + CHUNK] for first in range(0, len(examples), CHUNK)]
    return torch.cat([backbone.states(chunk, keep=False).features.float() for chunk in chunks])


def five_lines(name: str, train: Sequence[Example], asked: Sequence[Example]) -> Tensor:
    """Return which examples the five lines answer rightly."""
    states = Encoder(name)([*train, *asked])
    features = np.concatenate([normalised(states[layer]) for layer in LAYERS["three layers"]], axis=1)
    classifier = FiveLines(C=30, max_iter=1000).fit(features[: len(train)], [one.label for one in train])
    answers = classifier.predict(features[len(train) :])
    return torch.tensor([answer == one.label for answer, one in zip(answers, asked, strict=True)])


def paired(right: Tensor, base: Tensor) -> dict[str, float]:
    """Return the accuracy, the difference from another, and its standard error over examples."""
    difference = right.double() - base.double()
    return {
        "accuracy": float(right.double().mean()),
        "difference": float(difference.mean()),
        "standard_error": float(difference.std()) / sqrt(len(difference)),
    }


if __name__ == "__main__":
    main()
