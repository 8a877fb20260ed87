"""Train SetFit once and predict; started by benchmarks/rivals.py in an environment that has SetFit.

python setfit_worker.py ASKED.json ANSWER.json

Imports nothing of conpet, and sees no label but those it trains on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression

MAX_LENGTH = 128
PACKAGES = ("setfit", "sentence-transformers", "transformers", "torch", "scikit-learn")


def main() -> None:
    asked_path, answer_path = map(Path, sys.argv[1:])
    answer = trained(**json.loads(asked_path.read_text(encoding="utf-8")))
    answer["versions"] = {name: version(name) for name in PACKAGES}
    answer_path.write_text(json.dumps(answer), encoding="utf-8")


def trained(
    *,
    folder: str,
    texts: list[str],
    labels: list[str],
    asked: dict[str, list[str]],
    steps: int,
    learning_rate: float,
    inverse_strength: float,
    seed: int,
) -> dict[str, Any]:
    """Train the encoder by contrast, then a logistic regression; answer the texts of each subset asked."""
    torch.set_num_threads(1)
    start, cpu = time.perf_counter(), time.process_time()
    encoder = Transformer(folder, max_seq_length=MAX_LENGTH)
    body = SentenceTransformer(modules=[encoder, Pooling(encoder.config.hidden_size), Normalize()], device="cpu")
    model = SetFitModel(model_body=body, model_head=LogisticRegression(C=inverse_strength, max_iter=1000))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            body_learning_rate=learning_rate,
            seed=seed,
            save_strategy="no",
            report_to="none",
            show_progress_bar=False,
        )
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    seconds = {"train_seconds": time.perf_counter() - start, "train_cpu_seconds": time.process_time() - cpu}
    predicted = {}
    for subset, some in asked.items():
        start = time.perf_counter()
        predicted[subset] = [str(label) for label in model.predict(some, as_numpy=True)]
        seconds["encode_seconds"] = time.perf_counter() - start
    return {**seconds, "predicted": predicted}


if __name__ == "__main__":
    main()
