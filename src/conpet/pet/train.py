"""Train one task's module and head: a pure function of the backbone, the lesson, the settings and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import States
from conpet.config import TaskSettings
from conpet.pet.module import PetModule
from conpet.training import Plan, TrainLog, epoch_batches, optimise, steps_of

Watch = Callable[[int, PetModule, nn.Linear], None]
"""Looks at a module and its head in training: called with the number of steps done. It may raise."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModule:
    """A module with its linear head, and how training went."""

    module: PetModule
    head: nn.Linear
    log: TrainLog


def train_module(
    backbone: Backbone,
    states: States,
    targets: Tensor,
    labels: int,
    settings: TaskSettings,
    seed: int,
    *,
    others: Tensor | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    watch: Watch | None = None,
) -> TrainedModule:
    """Train a new module and head by cross-entropy.

    Args:
        backbone: The frozen model.
        states: Prefix states of n examples.
        targets: Index of each one's label `[n]`.
        labels: Number of labels.
        settings: Module, epochs, rates.
        seed: Seed of the first weights and of the order of examples.
        others: Fixed logits of the labels of older tasks `[n, O]` that stand beside the new ones in the softmax
            (the paper's training at k > 1), or None.
        checkpoint: Folder for checkpoints, or None.
        on_step: Called with the number of steps done and of all steps.
        watch: Called behind every step; what it raises ends the training.
    """
    module = PetModule(backbone, settings, seed)
    head = zero_head(backbone, labels)
    per_epoch = ceil(len(states) / settings.batch_size)
    steps = steps_of(len(states), settings)
    lengths = [len(one.ids) for one in states.encoded]
    orders: dict[int, list[list[int]]] = {}

    def rows_of(step: int) -> list[int]:
        epoch = step // per_epoch
        if epoch not in orders:
            orders.clear()
            orders[epoch] = epoch_batches(lengths, settings.batch_size, torch.Generator().manual_seed(seed + epoch))
        return orders[epoch][step % per_epoch]

    def loss(step: int) -> Tensor:
        rows = rows_of(step)
        batch = states.collate(rows, pad=backbone.encoder.pad, device=backbone.device)
        logits = head(module.represent(batch))
        if others is not None:
            logits = torch.cat([logits, others[rows].to(backbone.device)], dim=1)
        return nn.functional.cross_entropy(logits, targets[rows].to(backbone.device))

    def report(step: int, _loss: float) -> None:
        backbone.meter.steps += 1
        if on_step:
            on_step(step + 1, steps)
        if watch:
            watch(step + 1, module, head)

    module.train()
    parameters = {**module.parameters, **{f"head.{name}": value for name, value in head.named_parameters()}}
    plan = Plan(steps, settings.learning_rate, settings.weight_decay, seed=seed)
    log = optimise(parameters, loss, plan, checkpoint=checkpoint, on_step=report)
    module.train(False)
    return TrainedModule(module, head, log)


def represented(backbone: Backbone, module: PetModule, states: States) -> Tensor:
    """Return a module's representations `[n, R]`, float32, of n examples; nothing is trained."""
    out = torch.zeros(len(states), backbone.representation_size)
    with torch.no_grad():
        for rows in backbone.batching.batches([len(one.ids) for one in states.encoded]):
            batch = states.collate(rows, pad=backbone.encoder.pad, device=backbone.device)
            out[rows] = module.represent(batch).cpu()
    return out


def zero_head(backbone: Backbone, outputs: int) -> nn.Linear:
    """Return a head of zeros: its first prediction is uniform, and nothing is drawn from the global generator."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, backbone.representation_size, outputs, device=backbone.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def linear_head(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the head of a weight `[labels, R]` and a bias `[labels]`."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head
