"""At which depths should frozen features be read? Six data sets, validation examples, several backbones.

All labels at once, no tasks and no modules: LDA, logistic regression, and both with the weights the calibrated fusion
starts from. The shipped rule is `default_feature_layers`.

    python benchmarks/choose_features.py [--backbones minilm-l6,mpnet-base] [--data hwu64,...]
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from provenance import provenance, write_result
from torch import Tensor

from conpet.backbone.backbone import SAMPLE_TOKENS, Backbone, default_frozen_layers
from conpet.backbone.features import FrozenFeatures
from conpet.backbone.load import load_backbone
from conpet.backbone.sample_texts import SAMPLE_TEXTS
from conpet.backbone.states import pad_ids, spans_of
from conpet.data import Example, Style
from conpet.data.benchmarks import read_data
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.feature_map import FeatureMap, View
from conpet.features.logistic import LogisticRegression, LogisticWeights
from conpet.features.statistics import ClassSums, ClosedFormState, Gram
from conpet.fusion.calibrated import CalibratedFusion
from conpet.heads.labels import indices_of

DATA = ("clinc150", "banking77", "hwu64", "fewrel80", "fewnerd53", "semeval2010_task8")
SHARES = {
    "1/3, 2/3, 5/6, all": (1 / 3, 2 / 3, 5 / 6, 1),  # shipped
    "1/3, 2/3, all": (1 / 3, 2 / 3, 1),  # too few for spans
    "quarters": (1 / 4, 1 / 2, 3 / 4, 1),
    "1/2, 2/3, 5/6, all": (1 / 2, 2 / 3, 5 / 6, 1),
    "1/3, 1/2, 2/3, 5/6": (1 / 3, 1 / 2, 2 / 3, 5 / 6),
}
"""Depths, as shares of the layers of an encoder, or of the prefix of a causal model."""
TRAIN, VALIDATION = 20, 20
"""Most examples per label."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbones", default="minilm-l6")
    parser.add_argument("--data", default=",".join(DATA))
    chosen = parser.parse_args()
    made_by = provenance()
    results: dict[str, dict[str, Any]] = {}
    for name in chosen.backbones.split(","):
        loaded = load_backbone(name, dtype="auto", device="cpu")
        backbone = Backbone(loaded, frozen_layers=0, feature_layers=(1,))
        layers = backbone.cut.layers
        top = layers if loaded.encoder.style is Style.MASKED else default_frozen_layers(layers)
        depths = {rule: tuple(round(top * share) for share in shares) for rule, shares in SHARES.items()}
        reader = Reader(backbone, depths)
        for data in chosen.data.split(","):
            results.setdefault(name, {})[data] = measure(reader, data)
            print(name, data, results[name][data], flush=True)
    about = {"train_per_label": TRAIN, "validation_per_label": VALIDATION, "accuracies": results}
    print(write_result("features", about, made_by))


class Reader:
    """Reads the features of examples at several sets of depths in one pass."""

    def __init__(self, backbone: Backbone, depths: dict[str, tuple[int, ...]]) -> None:
        self.backbone = backbone
        self._prefix = backbone.cut.prefix(tuple(sorted(set(chain.from_iterable(depths.values())))))
        samples = [self._batch([Example.of_text(text)], SAMPLE_TOKENS)[:2] for text in SAMPLE_TEXTS]
        self._features = {rule: FrozenFeatures.fitted(at, samples) for rule, at in depths.items()}

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the features `[n, F]` by rule."""
        lengths = [len(encoded.ids) for encoded in self.backbone.encode(examples)]
        rows: dict[str, list[Any]] = {rule: [None] * len(examples) for rule in self._features}
        for batch in self.backbone.batching.batches(lengths):
            states, mask, spans = self._batch([examples[row] for row in batch])
            for rule, read in self._features.items():
                for row, values in zip(batch, read(states, mask, spans), strict=True):
                    rows[rule][row] = values
        return {rule: torch.stack(values) for rule, values in rows.items()}

    def _batch(self, examples: Sequence[Example], most: int = 128) -> tuple[Any, Tensor, Tensor]:
        encoder = self.backbone.encoder
        encoded = encoder.encode(examples, None, most)
        ids, mask = pad_ids(encoded, encoder.pad)
        padded = len({len(example.ids) for example in encoded}) > 1
        with torch.inference_mode():
            return self._prefix(ids, mask if padded else None), mask, spans_of(encoded)


def measure(reader: Reader, data: str) -> dict[str, Any]:
    """Return the accuracies on validation examples, by rule and classifier."""
    source = read_data(data, ())
    train, validation = (drawn(getattr(source, subset), most) for subset, most in SUBSETS.items())
    labels = sorted({str(example.label) for example in train})
    truth = indices_of([str(example.label) for example in validation], labels)
    fitted, asked = reader(train), reader(validation)
    names = [str(example.label) for example in train]
    return {"examples": len(validation)} | {
        rule: accuracies(fitted[rule], names, labels, asked[rule], truth, reader.backbone.hidden_size)
        for rule in fitted
    }


SUBSETS = {"train": TRAIN, "validation": VALIDATION}


def drawn(examples: Sequence[Example], most: int) -> list[Example]:
    """Draw examples of each label."""
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[str(example.label)].append(example)
    chosen = random.Random(0)
    return [one for _, of in sorted(by_label.items()) for one in chosen.sample(of, min(most, len(of)))]


def accuracies(
    train: Tensor, names: list[str], labels: list[str], asked: Tensor, truth: Tensor, block: int
) -> dict[str, float]:
    """Fit the classifiers on training features and return their accuracies."""
    views = FeatureMap(train.shape[1], 2048, 0, views=(View.RAW,))
    state = ClosedFormState(Gram.zero(views).plus(train), (ClassSums.of(views, train, names),))
    start = LogisticWeights.zero(train.shape[1], labels)
    logistic = LogisticRegression().fit(train, indices_of(names, labels), start, block=block)
    scores = {
        "lda": LinearDiscriminant().fit(state).scores(asked),
        "logistic": torch.log_softmax(logistic.logits(asked), dim=1),
    }
    weights = CalibratedFusion()
    scores["together"] = sum(getattr(weights, name) * values for name, values in scores.items())  # type: ignore[assignment]
    return {name: float((values.argmax(1) == truth).double().mean()) for name, values in scores.items()}


if __name__ == "__main__":
    main()
