"""The only optimisation loop: AdamW over a fixed number of steps, resumable, its randomness an argument."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, load_checkpoint, save_checkpoint
from conpet.config import TaskSettings
from conpet.errors import DivergedError

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
    on_gradient: Callable[[int], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainLog:
    """Minimise a loss.

    Args:
        parameters: What is trained, by name.
        loss_of_step: Step, from 0, to a scalar loss. It must depend on the step and on nothing drawn before, so that
            a resumed run does what an unbroken one would have done.
        plan: Steps and rates.
        checkpoint: Folder for checkpoints; a run that finds one there goes on from it.
        on_gradient: Called with a step's number when its gradients are there and may still be changed.
        on_step: Called behind every step with its number and loss.

    Raises:
        DivergedError: The loss is no longer a finite number; nothing learned so far is of use.
    """
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=plan.learning_rate, weight_decay=plan.weight_decay, eps=1e-6, fused=True
    )
    devices = {parameter.device for parameter in parameters.values() if parameter.is_cuda}
    log = TrainLog()
    if checkpoint is not None:
        _resume(checkpoint, parameters, optimizer, plan, log)
    started = saved = time.monotonic()
    for step in range(log.steps, plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(plan.seed + step)
            loss = loss_of_step(step)
        log.losses.append(_finite(loss, step, plan))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if on_gradient:
            on_gradient(step)
        nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
        optimizer.step()
        log.steps = step + 1
        if on_step:
            on_step(step, log.losses[-1])
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(checkpoint, _state(parameters, optimizer, plan, log))
            saved = time.monotonic()
    log.seconds = time.monotonic() - started
    return log


def _finite(loss: Tensor, step: int, plan: Plan) -> float:
    value = float(loss.detach())
    if not isfinite(value):
        raise DivergedError(
            f"training diverged: the loss at step {step + 1} of {plan.steps} is {value}; "
            f"use a learning_rate below {plan.learning_rate:g}"
        )
    return value


def _state(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, plan: Plan, log: TrainLog
) -> Artifact:
    moments = {
        f"{key}/{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    document = {"plan": asdict(plan), "steps": log.steps, "losses": log.losses}
    return Artifact(tensors={"weights": weights, "moments": moments}, documents={"training": document})


def _resume(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    log: TrainLog,
) -> None:
    """Go on from the checkpoint in `folder`, if there is one and it is of the same plan and parameters."""
    found = load_checkpoint(folder)
    if found is None:
        return
    document, weights = found.document("training"), found.tensors("weights")
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if document["plan"] != asdict(plan) or {name: value.shape for name, value in weights.items()} != shapes:
        return
    index = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in found.tensors("moments").items():
        moment, _, name = path.partition("/")
        state.setdefault(index[name], {})[moment] = value.clone()  # what lies in the file must not be written to
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    log.steps = log.resumed_at = int(document["steps"])
    log.losses = [float(loss) for loss in document["losses"]]


def steps_of(examples: int, settings: TaskSettings) -> int:
    """Return the optimiser steps of a task of so many new examples: its budget, however many tasks came before."""
    steps = settings.epochs * ceil(examples / settings.batch_size)
    return min(steps, settings.max_steps or steps)


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
