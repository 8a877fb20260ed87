"""The training loop of modules, heads and selectors: AdamW for a fixed number of steps; seeded and resumable.

The weights of the calibrated fusion are fitted elsewhere, by L-BFGS (`conpet.fusion.calibrated`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, load_checkpoint, save_checkpoint
from conpet.config import TrainingConfig
from conpet.cost import Meter, meter
from conpet.errors import DivergedError, StoppedError
from conpet.randomness import seeded

CHECKPOINT_SECONDS = 20.0
"""Shortest time between two checkpoints: a kill loses about this much training at most."""


READ_STEPS = 16
"""Steps between two reads of the losses: each read waits for the device, which then idles until the next step."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Number of steps, learning rate and other settings of a training run.

    Attributes:
        steps: Number of optimiser steps.
        learning_rate: Peak rate: linear warm-up over the first 10% of the steps, then linear decay to 0.
        weight_decay: AdamW's decoupled weight decay.
        clip: Largest norm of the gradient.
        seed: Seed, together with the step, of the random numbers of a step (dropout).
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warmup = max(1, round(self.steps / 10))
        share = (step + 1) / warmup if step < warmup else (self.steps - step) / max(1, self.steps - warmup)
        return self.learning_rate * share


@dataclass(frozen=True, slots=True, eq=False)
class ParameterGroup:
    """Parameters trained together by one schedule.

    Attributes:
        parameters: Trained parameters, by name.
        schedule: Steps and learning rate.
        name: Name for messages, or None if there is only one group.
    """

    parameters: Mapping[str, nn.Parameter]
    schedule: Schedule
    name: str | None = None

    def is_active(self, step: int) -> bool:
        """Tell whether the group is still trained at a step, counted from 0."""
        return step < self.schedule.steps


@dataclass(slots=True)
class TrainLog:
    """Record of a training run.

    Attributes:
        steps: Optimiser steps taken.
        losses: Loss of every step.
        seconds: Time spent in this process.
        resumed_at: Step at which it was resumed, 0 for a new run.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: int = 0


def optimise(
    parameters: Mapping[str, nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    on_gradient: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainLog:
    """Minimise a loss.

    Args:
        parameters: Trained parameters, by name.
        loss_of_step: Returns the scalar loss of a step, counted from 0. It must not depend on random numbers of earlier
            steps, so that a resumed run computes the same as an uninterrupted one.
        schedule: Steps and learning rate.
        checkpoint: Folder for checkpoints; a run resumes from a checkpoint it finds there.
        on_gradient: Called with the step's number after its backward pass; may change the gradients.
        on_step: Called with the step's number after each step. If it raises `StoppedError`, a checkpoint is saved.

    Raises:
        DivergedError: The loss is NaN or infinite; the parameters are unusable.
    """
    group = ParameterGroup(parameters, schedule)
    return optimise_batch([group], loss_of_step, checkpoint=checkpoint, on_gradient=on_gradient, on_step=on_step)[0]


def optimise_batch(
    groups: Sequence[ParameterGroup],
    losses_of_step: Callable[[int], Tensor],
    *,
    checkpoint: Path | None = None,
    on_gradient: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    read_steps: int = READ_STEPS,
) -> list[TrainLog]:
    """Minimise several losses, each by its own parameters and schedule, as if each were minimised alone.

    Args:
        groups: Trained parameters. If steps use random numbers (dropout), there must be only one group.
        losses_of_step: Returns the losses `[m]` of the groups active at a step, in order (or a scalar for a single
            group); see `optimise`.
        checkpoint: As in `optimise`.
        on_gradient: As in `optimise`.
        on_step: As in `optimise`.
        read_steps: Steps between two reads of the losses, at which NaN and infinity are detected.

    Raises:
        DivergedError: A loss is NaN or infinite.
    """
    optimizer = torch.optim.AdamW([_adamw_group(group) for group in groups], eps=1e-6, fused=True)
    devices = {parameter.device for parameter in _named(groups).values()}
    logs = [TrainLog() for _ in groups]
    resumed = _resume(checkpoint, groups, optimizer, logs) if checkpoint is not None else Meter()
    meter().resume(resumed)
    started = saved = time.monotonic()
    before = replace(meter())
    steps, unread = max(group.schedule.steps for group in groups), []
    for step in range(max(log.steps for log in logs), steps):
        active = [number for number, group in enumerate(groups) if group.is_active(step)]
        for group, options in zip(groups, optimizer.param_groups, strict=True):
            options["lr"] = group.schedule.rate(step)
        with seeded(groups[0].schedule.seed + step, devices):
            losses = losses_of_step(step).reshape(-1)
        unread.append(losses.detach())
        optimizer.zero_grad(set_to_none=True)  # finished groups then have no gradient and stay unchanged
        losses.sum().backward()
        if on_gradient:
            on_gradient(step)
        for number in active:
            nn.utils.clip_grad_norm_(groups[number].parameters.values(), groups[number].schedule.clip)
            logs[number].steps = step + 1
        optimizer.step()
        meter().steps += len(active)
        if len(unread) == read_steps or step + 1 == steps:
            _read_losses(unread, step + 1 - len(unread), groups, logs)
        stopped = _stopped_by(on_step, step)
        since = started if step + 1 == steps else saved  # what took long is kept whole: a later stage may be refused
        if checkpoint is not None and (stopped or time.monotonic() - since > CHECKPOINT_SECONDS):
            _read_losses(unread, step + 1 - len(unread), groups, logs)
            spent = meter().since(before)
            spent.seconds = time.monotonic() - started
            spent.add(resumed)
            save_checkpoint(checkpoint, _state(groups, optimizer, logs, spent))
            saved = time.monotonic()
        if stopped:
            raise stopped
    for log in logs:
        log.seconds = time.monotonic() - started
    return logs


def _stopped_by(on_step: Callable[[int], None] | None, step: int) -> StoppedError | None:
    """Call `on_step`, and return the error by which it stops the training, if it does."""
    try:
        if on_step:
            on_step(step)
    except StoppedError as stopped:
        return stopped
    return None


def _adamw_group(group: ParameterGroup) -> dict[str, Any]:
    """Return a group in the form that AdamW takes."""
    schedule = group.schedule
    return {
        "params": list(group.parameters.values()),
        "lr": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
    }


def _read_losses(unread: list[Tensor], first: int, groups: Sequence[ParameterGroup], logs: Sequence[TrainLog]) -> None:
    """Move the losses in `unread`, of the steps from `first`, into the logs."""
    if not unread:
        return
    values = torch.cat(unread).tolist()
    for step in range(first, first + len(unread)):
        for group, log in zip(groups, logs, strict=True):
            if group.is_active(step):
                log.losses.append(_finite(values.pop(0), step, group))
    unread.clear()


def _finite(value: float, step: int, group: ParameterGroup) -> float:
    if not isfinite(value):
        subject = f" of {group.name}" if group.name else ""
        raise DivergedError(
            f"training{subject} diverged: the loss at step {step + 1} of {group.schedule.steps} is {value}; "
            f"use a learning_rate below {group.schedule.learning_rate:g}"
        )
    return value


def _named(groups: Sequence[ParameterGroup]) -> dict[str, nn.Parameter]:
    """Return the parameters of all groups, in the optimizer's order, by unique names."""
    return {
        f"{number}.{name}": parameter
        for number, group in enumerate(groups)
        for name, parameter in group.parameters.items()
    }


def _state(
    groups: Sequence[ParameterGroup], optimizer: torch.optim.Optimizer, logs: Sequence[TrainLog], spent: Meter
) -> Artifact:
    parameters = _named(groups)
    moments = {
        f"{key}/{name}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    document = {
        "plans": [asdict(group.schedule) for group in groups],
        "steps": [log.steps for log in logs],
        "losses": [log.losses for log in logs],
        "spent": {name: value for name, value in asdict(spent).items() if name != "resumed"},
    }
    return Artifact(tensors={"weights": weights, "moments": moments}, documents={"training": document})


def _resume(
    folder: Path, groups: Sequence[ParameterGroup], optimizer: torch.optim.Optimizer, logs: Sequence[TrainLog]
) -> Meter:
    """Resume from the checkpoint in `folder`, if it exists and has the same schedules and parameters.

    Returns:
        What the attempts before it spent on the training.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        return Meter()
    document, weights, parameters = saved.document("training"), saved.tensors("weights"), _named(groups)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    schedules = [asdict(group.schedule) for group in groups]
    if document.get("plans") != schedules or {name: value.shape for name, value in weights.items()} != shapes:
        return Meter()
    index = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in saved.tensors("moments").items():
        moment, _, name = path.partition("/")
        state.setdefault(index[name], {})[moment] = (
            value.clone()
        )  # a copy: the file is mapped into memory and must not be changed
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for log, steps, losses in zip(logs, document["steps"], document["losses"], strict=True):
        log.steps = log.resumed_at = int(steps)
        log.losses = [float(loss) for loss in losses]
    return Meter(**document["spent"])


def steps_of(examples: int, settings: TrainingConfig) -> int:
    """Return the optimiser steps for a task with this many new examples; past tasks do not matter."""
    steps = settings.epochs * ceil(examples / settings.batch_size)
    return min(steps, settings.max_steps or steps)


def epoch_batches(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Divide one epoch of shuffled examples into batches of similar length; return the indices of each batch.

    Examples are shuffled, then sorted by length within pools of 16 batches, so batches are random but need little
    padding.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = batch_size * 16
    batches = []
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches += [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[index] for index in shuffled]
