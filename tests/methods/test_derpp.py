"""DER++: outputs are recorded with a task, looked up by example and label, and compared as in the equation."""

from __future__ import annotations

from math import exp, isnan, log
from pathlib import Path

import pytest
import torch

from conpet.api import ConPET
from conpet.methods.derpp import halves, squared_distance
from conpet.methods.replay_batches import ReplayBatches
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import past_examples
from conpet.testing import Trial, tiny_settings, toy_stream
from conpet.testing.checks import live_of
from tests.helpers.live import scored
from tests.helpers.static import outputs, shaken, start_task

STREAM = toy_stream(4, 2, 6, 0, 0)
ALPHA, BETA = 0.3, 0.7
NAN = float("nan")


def taught(folder: Path, tasks: int, **settings: object) -> ConPET:
    method = {"name": "der++", "alpha": ALPHA, "beta": BETA}
    return Trial(folder, tiny_settings(method=method, **settings)).taught(STREAM[:tasks])


def by_origin(batches: ReplayBatches, labels: slice) -> dict[tuple[str, int], list[float]]:
    """Return the recorded outputs for these labels, by task and index of the example."""
    assert batches.rehearsal is not None
    origins = zip(batches.rehearsal.tasks, batches.rehearsal.indices, strict=True)
    return dict(zip(origins, batches.method_data[:, labels].tolist(), strict=True))


def cross_entropy(logits: list[float], target: int) -> float:
    return log(sum(exp(value) for value in logits)) - logits[target]


def test_squared_distance_by_hand() -> None:
    now = torch.tensor([[1.0, 2.0, 9.0], [0.0, 1.0, 1.0]])
    then = torch.tensor([[0.0, 0.0, NAN], [0.0, 1.0, 4.0]])
    assert float(squared_distance(now, then)) == (1 + 4 + 9) / 2


def test_what_was_not_recorded_is_pulled_nowhere() -> None:
    now = torch.tensor([[1.0, 2.0]], requires_grad=True)
    assert torch.autograd.grad(squared_distance(now, torch.tensor([[0.0, NAN]])), now)[0].tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("recorded", "mirrored", "answered"),
    [
        ("1111", "1100", "0011"),
        ("111", "110", "001"),  # the odd one is compared
        ("1", "1", "0"),
        ("0111", "0100", "1011"),  # without a record, the label is all there is
        ("00", "00", "11"),
        ("", "", ""),
    ],
)
def test_halves(recorded: str, mirrored: str, answered: str) -> None:
    def bits(text: str) -> torch.Tensor:
        return torch.tensor([one == "1" for one in text], dtype=torch.bool)

    first, second = halves(torch.where(bits(recorded).unsqueeze(1), torch.tensor([1.0, NAN]), NAN))
    assert first.tolist() == bits(mirrored).tolist()
    assert second.tolist() == bits(answered).tolist()


def test_the_loss_of_a_step(tmp_path: Path) -> None:
    learner, batches = start_task(taught(tmp_path, 2), STREAM[2])
    assert batches.rehearsal is not None
    step = shaken(batches).step(0)
    assert (step.new_count, len(step.rows)) == (4, 8)
    logits, targets = outputs(batches, step), step.targets.tolist()
    losses = [cross_entropy(*pair) for pair in zip(logits, targets, strict=True)]
    distances = []
    for place in (4, 5):
        then = batches.method_data[step.rows[place] - batches.new_count].tolist()
        pairs = [(now, old) for now, old in zip(logits[place], then, strict=True) if not isnan(old)]
        assert len(pairs) in (2, 4)  # the first task knew two labels, the second four
        distances.append(sum((now - old) ** 2 for now, old in pairs))
    expected = sum(losses[:4]) / 4 + ALPHA * sum(distances) / 2 + BETA * sum(losses[6:]) / 2
    with torch.no_grad():
        assert float(learner.loss(batches, step)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"replay": {"memory_examples": 6}}], ids=["all kept", "few kept"])
def test_an_old_example_finds_what_was_said_of_it_at_the_end_of_its_task(
    settings: dict[str, int], tmp_path: Path
) -> None:
    workspace = taught(tmp_path, 0, **settings)
    said: dict[str, torch.Tensor] = {}  # text to log-probabilities over the labels known then
    for task in STREAM[:3]:
        workspace.learn(task, evaluate=False, gate=False)
        scores = scored(live_of(workspace), task.train).classes
        said |= {str(example.text): row for example, row in zip(task.train, scores, strict=True)}
    _, batches = start_task(workspace, STREAM[3])
    assert batches.rehearsal is not None
    texts = {}
    for source in past_examples(workspace.tasks):
        for index, example in zip(source.indices, source.examples(Subset.TRAIN), strict=True):
            texts[source.task, index] = str(example.text)
    assert len(batches.method_data) == len(batches.rehearsal.states) > 0
    origins = zip(batches.rehearsal.tasks, batches.rehearsal.indices, strict=True)
    for row, origin in zip(batches.method_data, origins, strict=True):
        expected = said[texts[origin]]
        assert torch.allclose(row[: len(expected)].log_softmax(dim=0), expected, atol=1e-4)
        assert bool(row[len(expected) :].isnan().all())


def test_outputs_are_found_by_label_when_a_task_has_left(tmp_path: Path) -> None:
    workspace = taught(tmp_path, 3)
    _, before = start_task(workspace, STREAM[3])
    workspace.remove(STREAM[0].name)
    _, after = start_task(workspace, STREAM[3])
    assert before.labels[2:] == after.labels

    have, had = by_origin(after, slice(0, 4)), by_origin(before, slice(2, 6))
    common = have.keys() & had.keys()
    assert len(common) > 5
    assert all(str(have[origin]) == str(had[origin]) for origin in common)  # as text, NaN equals NaN


def test_the_first_task_has_nothing_to_compare_with(tmp_path: Path) -> None:
    learner, batches = start_task(taught(tmp_path, 0), STREAM[0])
    step = shaken(batches).step(0)
    losses = [cross_entropy(*pair) for pair in zip(outputs(batches, step), step.targets.tolist(), strict=True)]
    with torch.no_grad():
        assert float(learner.loss(batches, step)) == pytest.approx(sum(losses) / 8, rel=1e-4)
