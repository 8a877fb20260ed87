"""The training loop of modules, heads and selectors: AdamW for a fixed number of steps, resumable, with a given seed.

The weights of the calibrated rule are fitted elsewhere, by L-BFGS (`conpet.fusion.rules`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conpet.artifact import Artifact, load_checkpoint, save_checkpoint
from conpet.config import TrainingConfig
from conpet.errors import DivergedError
from conpet.randomness import seeded

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints: at most this much training is lost by a kill."""


READ_STEPS = 16
"""Steps after which losses are read: to read one is to wait for the device, which then waits for the next step."""


@dataclass(frozen=True, slots=True)
class Schedule:
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


@dataclass(frozen=True, slots=True, eq=False)
class ParameterGroup:
    """Parameters to be trained by a plan of their own.

    Attributes:
        parameters: What is trained, by name.
        plan: How long and how fast.
        name: What messages call it, or None where there is but one.
    """

    parameters: Mapping[str, nn.Parameter]
    schedule: Schedule
    name: str | None = None

    def lasts(self, step: int) -> bool:
        """Tell whether there is still something to be trained at a step, counted from 0."""
        return step < self.schedule.steps


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
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    on_gradient: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainLog:
    """Minimise a loss.

    Args:
        parameters: What is trained, by name.
        loss_of_step: Step, from 0, to a scalar loss. It must depend on the step and on nothing drawn before, so that
            a resumed run does what an unbroken one would have done.
        plan: Steps and rates.
        checkpoint: Folder for checkpoints; a run that finds one there goes on from it.
        on_gradient: Called with a step's number when its gradients are there and may still be changed.
        on_step: Called behind every step with its number.

    Raises:
        DivergedError: The loss is no longer a finite number; nothing learned so far is of use.
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
    """Minimise several losses, each by its own parameters and plan, as if each were minimised alone.

    Args:
        courses: What is trained. Where steps draw (dropout), there must be but one.
        losses_of_step: Step, from 0, to the losses of those courses that still last at it, in order `[m]` (or a scalar
            where there is one course); see `optimise`.
        checkpoint: As in `optimise`.
        on_gradient: As in `optimise`.
        on_step: Called behind every step with its number.
        read_steps: Steps after which losses are read; only then is it noticed that one is no number.

    Raises:
        DivergedError: A loss is no longer a finite number.
    """
    optimizer = torch.optim.AdamW([_group(group) for group in groups], eps=1e-6, fused=True)
    devices = {one.device for one in _named(groups).values()}
    logs = [TrainLog() for _ in groups]
    if checkpoint is not None:
        _resume(checkpoint, groups, optimizer, logs)
    started = saved = time.monotonic()
    steps, unread = max(group.schedule.steps for group in groups), []
    for step in range(max(log.steps for log in logs), steps):
        lasting = [number for number, group in enumerate(groups) if group.lasts(step)]
        for group, own in zip(groups, optimizer.param_groups, strict=True):
            own["lr"] = group.schedule.rate(step)
        with seeded(groups[0].schedule.seed + step, devices):
            losses = losses_of_step(step).reshape(-1)
        unread.append(losses.detach())
        optimizer.zero_grad(set_to_none=True)  # so that what lasts no longer has no gradient, and is left as it is
        losses.sum().backward()
        if on_gradient:
            on_gradient(step)
        for number in lasting:
            nn.utils.clip_grad_norm_(groups[number].parameters.values(), groups[number].schedule.clip)
            logs[number].steps = step + 1
        optimizer.step()
        due = checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS
        if due or len(unread) == read_steps or step + 1 == steps:
            _read(unread, step + 1 - len(unread), groups, logs)
        if on_step:
            on_step(step)
        if checkpoint is not None and due:
            save_checkpoint(checkpoint, _state(groups, optimizer, logs))
            saved = time.monotonic()
    for log in logs:
        log.seconds = time.monotonic() - started
    return logs


def _group(group: ParameterGroup) -> dict[str, Any]:
    """Return a course's parameters with their rates, as AdamW takes them."""
    schedule = group.schedule
    return {
        "params": list(group.parameters.values()),
        "lr": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
    }


def _read(unread: list[Tensor], first: int, groups: Sequence[ParameterGroup], logs: Sequence[TrainLog]) -> None:
    """Write the losses of the steps from `first` on into the logs; `unread` is empty then."""
    values = torch.cat(unread).tolist()
    for step in range(first, first + len(unread)):
        for group, log in zip(groups, logs, strict=True):
            if group.lasts(step):
                log.losses.append(_finite(values.pop(0), step, group))
    unread.clear()


def _finite(value: float, step: int, group: ParameterGroup) -> float:
    if not isfinite(value):
        of_whom = f" of {group.name}" if group.name else ""
        raise DivergedError(
            f"training{of_whom} diverged: the loss at step {step + 1} of {group.schedule.steps} is {value}; "
            f"use a learning_rate below {group.schedule.learning_rate:g}"
        )
    return value


def _named(groups: Sequence[ParameterGroup]) -> dict[str, nn.Parameter]:
    """Return the parameters of all courses, in the optimizer's order, each by a name of its own."""
    return {
        f"{number}.{name}": parameter
        for number, group in enumerate(groups)
        for name, parameter in group.parameters.items()
    }


def _state(groups: Sequence[ParameterGroup], optimizer: torch.optim.Optimizer, logs: Sequence[TrainLog]) -> Artifact:
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
    }
    return Artifact(tensors={"weights": weights, "moments": moments}, documents={"training": document})


def _resume(
    folder: Path, groups: Sequence[ParameterGroup], optimizer: torch.optim.Optimizer, logs: Sequence[TrainLog]
) -> None:
    """Go on from the checkpoint in `folder`, if there is one and it is of the same plans and parameters."""
    found = load_checkpoint(folder)
    if found is None:
        return
    document, weights, parameters = found.document("training"), found.tensors("weights"), _named(groups)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    schedules = [asdict(group.schedule) for group in groups]
    if document.get("plans") != schedules or {name: value.shape for name, value in weights.items()} != shapes:
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
    for log, steps, losses in zip(logs, document["steps"], document["losses"], strict=True):
        log.steps = log.resumed_at = int(steps)
        log.losses = [float(loss) for loss in losses]


def steps_of(examples: int, settings: TrainingConfig) -> int:
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
