"""The score of belonging to something learned, against its formula written out over all examples."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from conpet.features.feature_map import STEPS, FeatureMap, View
from conpet.features.scope import GENERAL_EXAMPLES, SHRINKAGE, Scope
from conpet.features.statistics import ClassSums, ClosedFormState, Gram

MAP = FeatureMap(dim=8, projection=16, views=(View.RAW,))
Task = tuple[Tensor, list[str]]


def drawn(labels: Sequence[str], each: int = 6) -> Task:
    """Rows around a centre for each label; the same label always gets the same rows."""
    parts = []
    for label in labels:
        generator = torch.Generator().manual_seed(int(label))
        parts.append(
            torch.randn(1, MAP.dim, generator=generator) + 0.4 * torch.randn(each, MAP.dim, generator=generator)
        )
    return torch.cat(parts), [label for label in labels for _ in range(each)]


def statistics(*tasks: Task) -> ClosedFormState:
    gram = Gram.zero(MAP)
    for features, _ in tasks:
        gram = gram.plus(features)
    return ClosedFormState(gram, tuple(ClassSums.of(MAP, features, labels) for features, labels in tasks))


def scope_of(*tasks: Task) -> Scope:
    state = statistics(*tasks)
    return Scope.fit(state, torch.arange(len(state.labels)))


def as_written(tasks: Sequence[Task], asked: Tensor, without: Sequence[str] = ()) -> Tensor:
    """Return the scores by the formulas of `Scope`, in float64, with the means of some labels out of the background."""
    rows = torch.cat([MAP.view(View.RAW, features) for features, _ in tasks])
    owners = [label for _, labels in tasks for label in labels]
    labels = list(dict.fromkeys(owners))
    means = torch.stack([rows[[owner == label for owner in owners]].mean(dim=0) for label in labels])
    counts = torch.tensor([float(owners.count(label)) for label in labels], dtype=torch.float64)
    deviations = rows - means[[labels.index(owner) for owner in owners]]
    identity = torch.eye(MAP.dim, dtype=torch.float64)
    covariance = deviations.T @ deviations / max(len(rows) - len(labels), 1)
    within = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.diagonal().mean() * identity
    if not covariance.any():
        within = SHRINKAGE * STEPS**2 * identity
    total = counts.sum() + GENERAL_EXAMPLES
    centre = counts @ means / total
    background = within + (1 - SHRINKAGE) * GENERAL_EXAMPLES / total * torch.outer(centre, centre)
    for label, mean, count in zip(labels, means, counts, strict=True):
        if label not in without:
            background = background + (1 - SHRINKAGE) * count / total * torch.outer(mean - centre, mean - centre)
    x = MAP.view(View.RAW, asked)
    general = (((x - centre) @ background.inverse()) * (x - centre)).sum(dim=1, keepdim=True)
    towards = x.unsqueeze(1) - means
    scores = general - ((towards @ within.inverse()) * towards).sum(dim=2)
    gone = torch.tensor([label in without for label in labels])
    return scores.masked_fill(gone, -torch.inf).float()


ASKED = torch.cat([drawn("123")[0], 3 * torch.randn(20, MAP.dim, generator=torch.Generator().manual_seed(99))])
STREAMS = {
    "two tasks": [drawn("12"), drawn("345")],
    "one label": [drawn("1")],
    "one example": [drawn("1", each=1)],
    "more labels than dimensions": [drawn([f"{number:02}" for number in range(14)], each=3)],
}


@pytest.mark.parametrize("stream", STREAMS)
def test_the_score_is_what_is_written_of_it(stream: str) -> None:
    tasks = STREAMS[stream]
    assert_close(scope_of(*tasks).scores(ASKED), as_written(tasks, ASKED), rtol=1e-3, atol=1e-2)


def test_inputs_of_learned_labels_score_higher_than_others() -> None:
    scores = scope_of(drawn("12"), drawn("345")).scores(ASKED).amax(dim=1)
    assert scores[:18].min() > scores[18:].quantile(0.9)


def test_neither_the_order_of_tasks_nor_a_task_that_was_removed_changes_a_score() -> None:
    first, second, third = drawn("12"), drawn("34"), drawn("56")
    expected = scope_of(first, second).scores(ASKED)
    assert_close(scope_of(second, first).scores(ASKED)[:, [2, 3, 0, 1]], expected, rtol=1e-5, atol=1e-4)
    gram = statistics(first, third, second).gram.minus(third[0])
    left = ClosedFormState(gram, tuple(ClassSums.of(MAP, *task) for task in (first, second)))
    assert torch.equal(Scope.fit(left, torch.arange(4)).scores(ASKED), expected)


def test_rows_taken_out_of_the_statistics_leave_the_score_of_learning_without_them() -> None:
    features, labels = drawn("123")
    gone = [0, 1, 7]
    stay = [row for row in range(len(labels)) if row not in gone]
    state = statistics((features, labels))
    reduced = Scope.without_rows(state, torch.arange(3), features[gone], torch.tensor([0, 0, 1]))
    expected = scope_of((features[stay], [labels[row] for row in stay]))
    assert_close(reduced.scores(ASKED), expected.scores(ASKED), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 1]])
def test_a_label_or_task_left_out_is_part_neither_of_the_answers_nor_of_the_background(groups: list[int]) -> None:
    tasks = [drawn("12"), drawn("345")]
    own = torch.arange(len(ASKED)) % (max(groups) + 1)
    scores = scope_of(*tasks).scores_without(ASKED, own, torch.tensor(groups))
    for group in range(max(groups) + 1):
        names = [label for label, its_group in zip("12345", groups, strict=True) if its_group == group]
        rows = own == group
        assert_close(scores[rows], as_written(tasks, ASKED[rows], names), rtol=1e-3, atol=1e-2)


def test_general_language_scores_lower_than_a_single_label() -> None:
    features, labels = drawn("1")
    scope, own = scope_of((features, labels)), torch.zeros(len(labels), dtype=torch.int64)
    assert scope.scores(features).min() > scope.scores_of_general(features, own).max()
    known, general = scope.references
    assert float(known) > float(general)
