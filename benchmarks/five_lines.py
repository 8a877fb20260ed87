"""Measure what a practitioner would try first: a frozen encoder, mean-pooled states, scikit-learn's LogisticRegression.

Retrained on all labels at once, on the training examples of benchmarks/accuracy.yaml, and on these and the validation
examples, as the classifiers of conpet are. All variants are measured; the pages show the best of them on the test
examples.

python benchmarks/five_lines.py
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from accuracy_data import everything
from numpy.typing import NDArray
from provenance import provenance, write_result
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from conpet.backbone.load import find_folder
from conpet.data import Example

LAYERS = {"last layer": (-1,), "three layers": (2, 4, 6)}
"""Layers whose token means are normalised and concatenated."""
BATCH = 64


def main() -> None:
    made_by = provenance()
    backbone, found = everything()
    encoder = Encoder(backbone)
    results: dict[str, dict[str, Any]] = {}
    for data, examples in found.items():
        train, both, test = examples.train, [*examples.train, *examples.validation], examples.test
        start = time.perf_counter()
        states = encoder([*both, *test])
        results[data] = {"test_examples": len(test), "encode_seconds": time.perf_counter() - start}
        for name, layers in LAYERS.items():
            features = np.concatenate([normalised(states[layer]) for layer in layers], axis=1)
            for learned, suffix in ((train, ""), (both, ", validation examples too")):
                start = time.perf_counter()
                classifier = LogisticRegression(C=30, max_iter=1000)
                classifier.fit(features[: len(learned)], [one.label for one in learned])
                accuracy = classifier.score(features[len(both) :], [one.label for one in test])
                results[data][name + suffix] = {"whole_accuracy": accuracy, "fit_seconds": time.perf_counter() - start}
        print(data, results[data])
    print(write_result("five-lines", {"backbone": backbone, "data": results}, made_by))


class Encoder:
    """A plain transformers model; returns the mean over the tokens of texts at every layer."""

    def __init__(self, name: str) -> None:
        folder = find_folder(name)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def __call__(self, examples: list[Example]) -> list[NDArray[Any]]:
        """Return the means `[n, d]` for each layer, the embeddings first."""
        layers: list[list[torch.Tensor]] = []
        for first in range(0, len(examples), BATCH):
            texts = [example.text for example in examples[first : first + BATCH]]
            batch = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(2)
            hidden = self.model(**batch, output_hidden_states=True).hidden_states
            layers.append([(states * mask).sum(1) / mask.sum(1) for states in hidden])
        return [torch.cat(means).numpy() for means in zip(*layers, strict=True)]


def normalised(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows of norm 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
