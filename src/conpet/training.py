"""The only optimisation loop: AdamW over a fixed number of steps, resumable, its randomness an argument."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, load_checkpoint, save_checkpoint

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints: at most this much training is lost by a kill."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        steps: Number of optimiser steps.
        learning_rate: Highest rate; linear warm-up over the first 10% of the steps, then linear to 0.
        weight_decay: AdamW's decoupled weight decay.
        clip: Bound on the norm of the gradient.
        seed: Decides, with the step, what a step draws (dropout).
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = max(1, round(self.steps / 10))
        share = (step + 1) / warm if step < warm else (self.steps - step) / max(1, self.steps - warm)
        return self.learning_rate * share


@dataclass(slots=True)
class TrainLog:
    """What a training run did.

    Attributes:
        steps: Optimiser steps taken.
        losses: Loss of every step.
        seconds: Time spent in this process.
        resumed_at: Step it went on from, 0 for a run from the start.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: int = 0


def optimise(
    parameters: Mapping[str, nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    plan: Plan,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainLog:
    """Minimise a loss.

    Args:
        parameters: What is trained, by name.
        loss_of_step: Step, from 0, to a scalar loss. It must depend on the step and on nothing drawn before, so that
            a resumed run does what an unbroken one would have done.
        plan: Steps and rates.
        checkpoint: Folder for checkpoints; a run that finds one there goes on from it.
        on_step: Called behind every step with its number and loss.
    """
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=plan.learning_rate, weight_decay=plan.weight_decay, eps=1e-6, foreach=True
    )
    log = TrainLog()
    if checkpoint is not None:
        _resume(checkpoint, parameters, optimizer, log)
    started = saved = time.monotonic()
    for step in range(log.steps, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed + step)
            loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
        optimizer.step()
        log.steps = step + 1
        log.losses.append(float(loss.detach()))
        if on_step:
            on_step(step, log.losses[-1])
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(checkpoint, _state(parameters, optimizer, log))
            saved = time.monotonic()
    log.seconds = time.monotonic() - started
    return log


def _state(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, log: TrainLog) -> Artifact:
    moments: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            moments[f"{key}/{name}"] = value
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    document = {"steps": log.steps, "losses": log.losses}
    return Artifact(tensors={"weights": weights, "moments": moments}, documents={"training": document})


def _resume(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, log: TrainLog
) -> None:
    found = load_checkpoint(folder)
    if found is None:
        return
    weights, moments = found.tensors("weights"), found.tensors("moments")
    state: dict[str, dict[str, Any]] = {}
    for key, value in moments.items():
        moment, _, name = key.partition("/")
        state.setdefault(name, {})[moment] = value.clone()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            optimizer.state[parameter] = state.get(name, {})
    document = found.document("training")
    log.steps = log.resumed_at = int(document["steps"])
    log.losses = [float(loss) for loss in document["losses"]]


def epoch_batches(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Cut one epoch of shuffled examples into batches of like length.

    Examples are shuffled, then sorted by length within pools of 16 batches, so batches stay random but pad little.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = batch_size * 16
    batches = []
    for start in range(0, len(order), pool):
        some = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches += [some[first : first + batch_size] for first in range(0, len(some), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[index] for index in shuffled]
