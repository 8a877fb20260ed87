"""Full fine-tuning of an encoder: mean of the last layer's token states, a linear head on all labels, AdamW."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

MAX_LENGTH = 128
WARMUP = 0.1
WEIGHT_DECAY = 0.01
CLIP = 1.0
POOL = 8
"""Batches whose examples are drawn together and sorted by length, so that batches need little padding."""


class Settings(NamedTuple):
    learning_rate: float
    epochs: int
    batch_size: int = 16


class Classifier(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, folder: Path, labels: list[str]) -> None:
        super().__init__()
        self.labels = labels
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.dropout = nn.Dropout(self.encoder.config.hidden_dropout_prob)
        self.head = nn.Linear(self.encoder.config.hidden_size, len(labels))

    def forward(self, texts: list[str]) -> Tensor:
        """Return the logits `[n, labels]`."""
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(2)
        states = self.encoder(**batch).last_hidden_state
        logits: Tensor = self.head(self.dropout((states * mask).sum(1) / mask.sum(1)))
        return logits

    @torch.inference_mode()
    def predict(self, texts: list[str], batch_size: int = 64) -> list[str]:
        """Return the labels of texts."""
        self.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, str] = {}
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            best = self([texts[i] for i in part]).argmax(1).tolist()
            found |= {i: self.labels[label] for i, label in zip(part, best, strict=True)}
        return [found[i] for i in range(len(texts))]


def fine_tune(folder: Path, texts: list[str], labels: list[str], settings: Settings, seed: int) -> Classifier:
    """Train all weights on texts and their labels; the learning rate warms up, then falls linearly to 0."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    model = Classifier(folder, sorted(set(labels))).train()
    number = {label: i for i, label in enumerate(model.labels)}
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    steps = settings.epochs * -(-len(texts) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * steps), (steps - step) / ((1 - WARMUP) * steps), 1.0)
    )
    for _ in range(settings.epochs):
        for part in batches(texts, settings.batch_size, draw):
            loss = nn.functional.cross_entropy(
                model([texts[i] for i in part]), torch.tensor([number[labels[i]] for i in part])
            )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model


def batches(texts: list[str], size: int, draw: random.Random) -> list[list[int]]:
    """Return the indices of an epoch's batches, in random order."""
    order = draw.sample(range(len(texts)), len(texts))
    pools = [sorted(order[i : i + POOL * size], key=lambda j: len(texts[j])) for i in range(0, len(order), POOL * size)]
    parts = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
    draw.shuffle(parts)
    return parts
