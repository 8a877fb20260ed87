"""How far should the covariance of LDA be shrunk? Six data sets, on training examples that no benchmark uses.

Trained on the training examples of benchmarks/accuracy.yaml, asked about up to 30 others per label of the same files:
no validation or test example. All labels at once: LDA alone, and added to the logistic regression with the weights that
the calibrated fusion starts from. `0.1` is a fixed share, the numbers are priors in examples.

    python benchmarks/choose_prior.py [--backbones minilm-l6,mpnet-base] [--data hwu64,...]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from accuracy_data import everything
from choose_last_weight import features_of, paired, unused
from provenance import provenance, write_result
from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.data import Example, Kind
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.feature_map import FeatureMap, View
from conpet.features.logistic import LAST_LAYER_WEIGHT, LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums, ClosedFormState, Gram
from conpet.fusion.calibrated import CalibratedFusion
from conpet.heads.labels import indices_of

PRIORS = (100, 200, 400, 800, 1600)
FIXED = 0.1


def main() -> None:
    default, found = everything(tuple(Kind))
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbones", default=default)
    parser.add_argument("--data", default=",".join(found))
    chosen = parser.parse_args()
    made_by = provenance()
    for name in chosen.backbones.split(","):
        backbone = Backbone(load_backbone(name, dtype="auto", device="cpu"))
        results: dict[str, Any] = {}
        for data in chosen.data.split(","):
            train = found[data].train
            asked = unused(data, train)
            right = rightly_answered(backbone, train, asked)
            results[data] = {"learned": len(train), "asked": len(asked)} | {
                classifier: {rule: paired(rows, by_rule[f"{FIXED:g}"]) for rule, rows in by_rule.items()}
                for classifier, by_rule in right.items()
            }
            print(name, data, results[data], flush=True)
        print(write_result(f"prior-{name}", {"backbone": name, "data": results}, made_by))


def rightly_answered(
    backbone: Backbone, train: Sequence[Example], asked: Sequence[Example]
) -> dict[str, dict[str, Tensor]]:
    """Return which examples are answered rightly, by classifier and rule."""
    names = [str(example.label) for example in train]
    learned, features = (features_of(backbone, examples) for examples in (train, asked))
    views = FeatureMap(learned.shape[1], 1, 0, views=(View.RAW,))
    state = ClosedFormState(Gram.zero(views).plus(learned), (ClassSums.of(views, learned, names),))
    targets, truth = (
        indices_of([str(example.label) for example in examples], state.labels) for examples in (train, asked)
    )
    start = LogisticWeights.zero(learned.shape[1], list(state.labels))
    last_weight = LAST_LAYER_WEIGHT if train[0].kind is Kind.TEXT else 1.0
    fitted = LogisticRegression().fit(learned, targets, start, block=backbone.hidden_size, last_weight=last_weight)
    logistic = fitted.logits(features).log_softmax(dim=1)
    weights = CalibratedFusion()
    found: dict[str, dict[str, Tensor]] = {"lda": {}, "together": {}}
    for rule, shrinkage in shrinkages(len(names)).items():
        lda = LinearDiscriminant(shrinkage).fit(state).scores(features)
        for classifier, scores in (("lda", lda), ("together", weights.lda * lda + weights.logistic * logistic)):
            found[classifier][rule] = scores.argmax(dim=1) == truth
    return found


def shrinkages(examples: int) -> dict[str, float]:
    """Return the shrinkage of each rule for a number of training examples."""
    return {f"{FIXED:g}": FIXED} | {str(prior): prior / (prior + examples) for prior in PRIORS}


if __name__ == "__main__":
    main()
