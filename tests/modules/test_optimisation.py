"""The optimisation loop: its schedule, its exact resumption, its batches, what it refuses."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from conpet.config import Settings
from conpet.data import Example
from conpet.errors import ConfigError, DivergedError, StoppedError
from conpet.modules import optimisation
from conpet.modules.optimisation import (
    READ_STEPS,
    ParameterGroup,
    Schedule,
    TrainLog,
    epoch_batches,
    optimise,
    optimise_batch,
)
from conpet.modules.training import (
    MAX_BATCHED_ROWS,
    TrainedModule,
    TrainingJob,
    group_jobs,
    train_module,
    train_modules,
)
from tests.helpers.backbones import EXAMPLES, tiny_backbone
from tests.helpers.modules import job


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


@pytest.fixture(autouse=True)
def _checkpoint_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)


def line() -> dict[str, nn.Parameter]:
    return {"slope": nn.Parameter(torch.zeros(3)), "shift": nn.Parameter(torch.zeros(()))}


def noisy(parameters: dict[str, nn.Parameter]) -> Callable[[int], Tensor]:
    """A loss that draws from torch's generator, as dropout does."""

    def loss(step: int) -> Tensor:
        inputs = torch.randn(8, 3)
        wanted = inputs @ torch.tensor([1.0, -2.0, 3.0]) + 0.5
        return (inputs @ parameters["slope"] + parameters["shift"] - wanted).square().mean() + 0 * step

    return loss


def run(
    schedule: Schedule, folder: Path | None = None, until: int | None = None, more: int = 0
) -> tuple[dict[str, nn.Parameter], TrainLog]:
    parameters = line() | ({"more": nn.Parameter(torch.zeros(more))} if more else {})

    def stop(step: int) -> None:
        if step == until:
            raise Killed

    try:
        log = optimise(parameters, noisy(parameters), schedule, checkpoint=folder, on_step=stop)
    except Killed:
        log = TrainLog()
    return parameters, log


def assert_equal(first: dict[str, nn.Parameter], second: dict[str, nn.Parameter]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_rate_warms_up_over_a_tenth_then_falls_to_nothing() -> None:
    schedule = Schedule(steps=100, learning_rate=2.0)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2 / 90)
    assert rates.index(max(rates)) == 9
    assert [Schedule(1, 2.0).rate(0), Schedule(2, 2.0).rate(1)] == [2.0, 2.0]


def test_a_loss_is_minimised_and_every_step_logged() -> None:
    parameters, log = run(Schedule(steps=300, learning_rate=0.1, weight_decay=0.0))
    torch.testing.assert_close(parameters["slope"].detach(), torch.tensor([1.0, -2.0, 3.0]), rtol=0, atol=0.05)
    assert (log.steps, len(log.losses), log.resumed_at) == (300, 300, 0)
    assert log.losses[-1] < 0.01 < log.losses[0]
    assert log.seconds > 0


def test_the_seed_decides_the_run_and_nothing_else_does() -> None:
    torch.manual_seed(1)
    first, _ = run(Schedule(20, 0.1, seed=5))
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    again, _ = run(Schedule(20, 0.1, seed=5))
    assert torch.equal(torch.rand(1), drawn)
    other, _ = run(Schedule(20, 0.1, seed=6))
    assert_equal(first, again)
    assert not torch.equal(first["slope"], other["slope"])


@pytest.mark.parametrize("until", [1, 7, 19])
def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(until: int, tmp_path: Path) -> None:
    schedule = Schedule(20, 0.1)
    whole, log = run(schedule)
    run(schedule, tmp_path, until=until)
    resumed, again = run(schedule, tmp_path)
    assert again.resumed_at == until  # the step that was killed is done again
    assert again.steps == 20
    assert again.losses == log.losses
    assert_equal(resumed, whole)


@pytest.mark.parametrize("until", [1, READ_STEPS, 19])
def test_a_run_that_is_stopped_saves_its_last_step(until: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", 1000.0)
    schedule = Schedule(20, 0.1)
    whole, log = run(schedule)

    def stop(step: int) -> None:
        if step + 1 == until:
            raise StoppedError("that is enough")

    stopped = line()
    with pytest.raises(StoppedError, match="enough"):
        optimise(stopped, noisy(stopped), schedule, checkpoint=tmp_path, on_step=stop)
    resumed, again = run(schedule, tmp_path)
    assert (again.resumed_at, again.losses) == (until, log.losses)
    assert_equal(resumed, whole)


def test_a_run_may_be_killed_again_and_again(tmp_path: Path) -> None:
    schedule = Schedule(20, 0.1)
    for until in (3, 4, 5, 16):
        run(schedule, tmp_path, until=until)
    assert_equal(run(schedule, tmp_path)[0], run(schedule)[0])


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    run(Schedule(20, 0.1), tmp_path, until=9)
    other, log = run(Schedule(20, 0.2), tmp_path)
    assert log.resumed_at == 0
    assert_equal(other, run(Schedule(20, 0.2))[0])
    run(Schedule(20, 0.1), tmp_path, until=9)
    _, log = run(Schedule(20, 0.1), tmp_path, more=2)
    assert log.resumed_at == 0


def test_a_damaged_checkpoint_is_not_taken(tmp_path: Path) -> None:
    schedule = Schedule(20, 0.1)
    run(schedule, tmp_path, until=9)
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    resumed, log = run(schedule, tmp_path)
    assert log.resumed_at == 0
    assert_equal(resumed, run(schedule)[0])


def test_checkpoints_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", 3600.0)
    run(Schedule(20, 0.1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_says_what_to_change() -> None:
    parameters = line()

    def loss(step: int) -> Tensor:
        return parameters["slope"].sum() + (torch.inf if step == 3 else 0.0)

    with pytest.raises(ConfigError, match=r"step 4 of 20 is inf; use a learning_rate below 0\.1"):
        optimise(parameters, loss, Schedule(20, 0.1))
    assert torch.isfinite(parameters["slope"]).all()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("frozen_layers", [2, 0])
def test_a_module_whose_training_was_killed_ends_byte_for_byte_the_same(
    dropout: float, frozen_layers: int, tmp_path: Path
) -> None:
    training = {"epochs": 4, "batch_size": 2, "learning_rate": 0.01}
    settings = Settings.parse({"module": {"rank": 2, "dropout": dropout}, "training": training}).for_task({})

    def train(folder: Path | None = None, until: int | None = None) -> TrainedModule:
        def stop(done: int, _steps: int) -> None:
            if done == until:
                raise Killed

        backbone = tiny_backbone("llama", frozen_layers=frozen_layers)
        return train_module(backbone, job(backbone, settings, 11), checkpoint=folder, on_step=stop)

    whole = train()
    for until in (5, 8):
        with pytest.raises(Killed):
            train(tmp_path, until)
    resumed = train(tmp_path)
    assert resumed.log.resumed_at == 7
    assert resumed.log.losses == whole.log.losses
    expected = whole.module.tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.module.tensors().items())
    assert torch.equal(resumed.head.weight, whole.head.weight)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 17), st.integers(0, 2**32))
def test_an_epoch_shows_every_example_once_in_batches_of_like_length(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    batches = epoch_batches(lengths, batch_size, torch.Generator().manual_seed(seed))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert max(len(batch) for batch in batches) <= batch_size
    assert len(batches) == -(-len(lengths) // batch_size)
    assert batches == epoch_batches(lengths, batch_size, torch.Generator().manual_seed(seed))


def test_batches_pad_little_and_come_in_random_order() -> None:
    lengths = torch.randint(5, 60, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = epoch_batches(lengths, 16, torch.Generator().manual_seed(0))
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.15 * sum(lengths)
    means = [sum(lengths[index] for index in batch) / len(batch) for batch in batches]
    assert means != sorted(means)
    assert batches != epoch_batches(lengths, 16, torch.Generator().manual_seed(1))


def several() -> list[ParameterGroup]:
    schedules = [
        Schedule(20, 0.1, clip=0.5),
        Schedule(12, 0.3, weight_decay=0.1, clip=0.5),
        Schedule(20, 0.02, clip=0.5),
    ]
    return [ParameterGroup(line(), schedule, f"group {number}") for number, schedule in enumerate(schedules)]


def fitting(groups: list[ParameterGroup]) -> Callable[[int], Tensor]:
    """The losses of groups that each fit another line; nothing is drawn."""

    def losses(step: int) -> Tensor:
        inputs = torch.linspace(-1, 1, 24).view(8, 3) * (1 + step % 3)
        wanted = [inputs @ torch.tensor([1.0, -2.0, 3.0]) + number for number in range(len(groups))]
        found = [inputs @ group.parameters["slope"] + group.parameters["shift"] for group in groups]
        every = zip(groups, found, wanted, strict=True)
        return torch.stack([(one - right).square().mean() for group, one, right in every if group.is_active(step)])

    return losses


def trained_alone(number: int) -> tuple[ParameterGroup, TrainLog]:
    groups = several()
    group = groups[number]

    def loss(step: int) -> Tensor:
        return fitting(groups)(step)[sum(one.is_active(step) for one in groups[:number])]

    return group, optimise(group.parameters, loss, group.schedule)


def test_groups_trained_in_one_batch_end_as_each_does_alone() -> None:
    groups = several()
    logs = optimise_batch(groups, fitting(groups))
    for number, (group, log) in enumerate(zip(groups, logs, strict=True)):
        alone, its_log = trained_alone(number)
        assert (log.steps, len(log.losses)) == (group.schedule.steps, group.schedule.steps)
        assert log.losses == pytest.approx(its_log.losses)
        for name, parameter in group.parameters.items():
            torch.testing.assert_close(parameter, alone.parameters[name])


@pytest.mark.parametrize("until", [3, 11, 15])
def test_groups_killed_together_go_on_together(until: int, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == until:
            raise Killed

    whole = several()
    logs = optimise_batch(whole, fitting(whole))
    killed = several()
    with pytest.raises(Killed):
        optimise_batch(killed, fitting(killed), checkpoint=tmp_path, on_step=stop)
    resumed = several()
    again = optimise_batch(resumed, fitting(resumed), checkpoint=tmp_path)
    assert max(log.resumed_at for log in again) == until
    assert [log.losses for log in again] == [log.losses for log in logs]
    for group, expected in zip(resumed, whole, strict=True):
        assert all(torch.equal(group.parameters[name], expected.parameters[name]) for name in expected.parameters)


def test_of_groups_trained_in_one_batch_the_one_that_diverges_is_named() -> None:
    groups = several()

    def losses(step: int) -> Tensor:
        found = fitting(groups)(step)
        return found * torch.tensor([1.0, torch.nan if step == 2 else 1.0, 1.0])[: len(found)]

    with pytest.raises(DivergedError, match="training of group 1 diverged: the loss at step 3 of 12 is nan"):
        optimise_batch(groups, losses)


def jobs(**settings: Any) -> list[TrainingJob]:
    """Four small tasks over the same examples, of unequal numbers of steps."""
    backbone = tiny_backbone("llama", frozen_layers=1)
    states = backbone.states(EXAMPLES)
    answers = [str(number % 3) for number in range(len(EXAMPLES))]
    small = Settings.parse({"module": {"rank": 2}})
    values = [{"epochs": 2}, {"epochs": 4}, {"epochs": 4, "learning_rate": 3e-3}, {"epochs": 1}]
    return [
        TrainingJob.over_labels(
            states.select(range(number, len(EXAMPLES))),
            answers[number:],
            ["0", "1", "2"],
            small.changed({"training": one}).changed(settings).for_task({}),
            seed=number,
        )
        for number, one in enumerate(values)
    ]


def test_modules_trained_in_one_batch_are_those_trained_alone() -> None:
    backbone, given, said = tiny_backbone("llama", frozen_layers=1), jobs(), []
    assert len(group_jobs(given)) == 1
    found = train_modules(backbone, given, on_step=lambda done, steps: said.append(done / steps))
    assert said == sorted(said)
    assert said[-1] == 1.0
    for one_job, one in zip(given, found, strict=True):
        alone = train_module(backbone, one_job)
        assert one.log.steps == alone.log.steps
        assert one.log.losses == pytest.approx(alone.log.losses, rel=1e-3)
        torch.testing.assert_close(one.module.tensors(), alone.module.tensors(), rtol=1e-2, atol=1e-4)
        torch.testing.assert_close(one.head.weight, alone.head.weight, rtol=1e-2, atol=1e-4)
        batch = one_job.states.collate([0, 1], pad=backbone.encoder.pad, device=backbone.device)
        torch.testing.assert_close(one.module.represent(batch), alone.module.represent(batch), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "sets"),
    [
        ({}, 1),
        ({"module": {"rslora": True}}, 1),
        ({"module": {"dropout": 0.1}}, 4),
        ({"module": {"dora": True}}, 4),
        ({"module": "ia3"}, 4),
        ({"training": {"micro_batch_tokens": 8}}, 4),
        ({"training": {"batch_size": 64}}, 1),
    ],
)
def test_modules_train_in_one_batch_where_each_learns_as_it_would_alone(settings: dict[str, Any], sets: int) -> None:
    given = jobs(**settings)
    found = group_jobs(given)
    assert len(found) == sets
    assert sorted(index for some in found for index in some) == [0, 1, 2, 3]
    for some in found:
        steps = [given[index].steps for index in some]
        assert steps == sorted(steps, reverse=True)


def test_short_and_long_examples_do_not_share_a_step() -> None:
    backbone = tiny_backbone("llama", frozen_layers=1)
    texts = ["hi", "ho", " ".join(["word"] * 12), " ".join(["other"] * 10)]
    given = [
        TrainingJob.over_labels(
            backbone.states([Example.of_text(text)] * 3),
            list("abc"),
            list("abc"),
            Settings.parse({}).for_task({}),
            seed,
        )
        for seed, text in enumerate(texts)
    ]
    assert sorted(sorted(some) for some in group_jobs(given)) == [[0, 1], [2, 3]]


def test_many_small_modules_are_trained_so_many_at_a_time_that_a_step_is_not_too_large() -> None:
    given = jobs() * 30
    rows = [sum(given[index].rows for index in some) for some in group_jobs(given)]
    assert max(rows) <= MAX_BATCHED_ROWS < sum(rows)


WAITED_FOR = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"}


class Waiting(TorchDispatchMode):
    """Counts the operations for whose result our code would wait on a device that computes beside it.

    Transformers waits once or twice a pass, to see whether the inputs are packed or padded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indexed = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype is torch.bool for one in args[1]
        )
        theirs = any("transformers" in frame.filename for frame in traceback.extract_stack(limit=12))
        if not theirs and (indexed or name in WAITED_FOR):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("padded", "together"), [(False, False), (True, True)])
def test_a_step_waits_for_nothing(padded: bool, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA device the next step is then queued while this one is computed."""
    backbone, tolist = tiny_backbone("llama", frozen_layers=1), Tensor.tolist
    states = backbone.states(EXAMPLES if padded else [EXAMPLES[0]] * 5)

    def waited(epochs: int) -> Counter[str]:
        settings = Settings.parse({"module": {"rank": 2}, "training": {"epochs": epochs}}).for_task({})
        jobs = [replace(job(backbone, settings, seed), states=states) for seed in range(1 + together)]
        with Waiting() as waiting, monkeypatch.context() as patch:
            patch.setattr(Tensor, "tolist", lambda one: waiting.found.update([str(one.dtype)]) or tolist(one))
            train_modules(backbone, jobs)
        del waiting.found["torch.int64"]  # the order of examples, which no device computes
        return waiting.found

    assert waited(2) == waited(READ_STEPS) == {"torch.float32": 1}  # the losses, in the end
