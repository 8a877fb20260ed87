"""CRL: its losses equal the paper's sums, and it answers with the nearest prototype."""

from __future__ import annotations

from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch

from conpet.methods.crl import contrast, divergence, means, nearest_prototype, projected, sampled, similarity, spread
from conpet.methods.static import METHOD, STATIC
from conpet.modules.module import HEAD
from conpet.state.module_assignment import LABELS
from conpet.testing import Trial, tiny_settings, toy_stream
from tests.helpers.static import representations, shaken, start_task


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return dot(one, other) / sqrt(dot(one, one) * dot(other, other))


def squared_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return sum((a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True))


def shares(point: torch.Tensor, prototypes: torch.Tensor) -> list[float]:
    weights = [exp(10 * cosine(point, prototype)) for prototype in prototypes]
    return [weight / sum(weights) for weight in weights]


def test_the_contrastive_loss_is_the_papers_sum() -> None:
    """Examples 0 to 3 lie in rows 2, 0, 5 and 6 of the memory bank; the label of the last occurs nowhere else."""
    pool = torch.nn.functional.normalize(random(7, 5, seed=1), dim=1)
    z = torch.nn.functional.normalize(random(4, 5, seed=2), dim=1)
    labels, rows = [0, 1, 0, 1, 2, 2, 3], [2, 0, 5, 6]
    same = torch.tensor([[labels[row] == label for label in labels] for row in rows])
    other = torch.tensor([[row != number for number in range(7)] for row in rows])
    found = contrast(z, pool, same, other)
    for example, row in enumerate(rows):
        others = [number for number in range(7) if number != row]
        positives = [number for number in others if labels[number] == labels[row]]
        below = sum(exp(dot(z[example], pool[number]) / 0.1) for number in others)
        terms = [log(exp(dot(z[example], pool[number]) / 0.1) / below) for number in positives]
        wanted = -sum(terms) / len(terms) if terms else 0.0
        assert float(found[example]) == pytest.approx(wanted, abs=1e-4)


def test_an_example_near_its_like_and_opposite_to_the_rest_has_no_loss() -> None:
    up, down = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    same = torch.tensor([[True, False], [False, True]])
    right, wrong = contrast(torch.stack([up, up]), torch.stack([up, down]), same, torch.ones_like(same)).tolist()
    assert right == pytest.approx(log(1 + exp(-20)), abs=1e-6)
    assert wrong == pytest.approx(20, abs=1e-4)


def test_similarities_are_sharpened_cosines_and_their_change_is_the_divergence() -> None:
    then, now, prototypes = random(3, 4, seed=1), random(3, 4, seed=2), random(5, 4, seed=3)
    found = divergence(similarity(then, prototypes), similarity(now, prototypes))
    for row in range(3):
        before, after = shares(then[row], prototypes), shares(now[row], prototypes)
        assert similarity(then, prototypes)[row].exp().tolist() == pytest.approx(before, abs=1e-5)
        wanted = sum(p * log(p / q) for p, q in zip(before, after, strict=True))
        assert float(found[row]) == pytest.approx(wanted, abs=1e-4)


def test_projections_have_length_one() -> None:
    weights = {
        "0.weight": random(3, 3, seed=1),
        "0.bias": random(3, seed=2),
        "1.weight": random(4, 3, seed=3),
        "1.bias": random(4, seed=4),
    }
    point = random(1, 3, seed=5)
    inner = [max(0.0, dot(weights["0.weight"][i], point[0]) + float(weights["0.bias"][i])) for i in range(3)]
    outer = [dot(weights["1.weight"][i], torch.tensor(inner)) + float(weights["1.bias"][i]) for i in range(4)]
    length = sqrt(sum(value**2 for value in outer))
    assert projected(point, weights)[0].tolist() == pytest.approx([value / length for value in outer], abs=1e-5)


def test_prototypes_are_means_and_stay_where_nothing_was_drawn() -> None:
    """Hand-sized: label 0 has (0, 0) and (2, 4), label 2 has (5, 5); label 1 was at (7, 7)."""
    points, targets = torch.tensor([[0.0, 0.0], [5.0, 5.0], [2.0, 4.0]]), torch.tensor([0, 2, 0])
    before = torch.tensor([[9.0, 9.0], [7.0, 7.0], [9.0, 9.0]])
    prototypes = means(points, targets, before)
    assert prototypes.tolist() == [[1, 2], [7, 7], [5, 5]]
    assert spread(points, targets, prototypes) == pytest.approx((5 + 5 + 0) / (3 - 2))


def test_the_spread_of_single_points_is_that_of_the_prototypes() -> None:
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert spread(points, torch.tensor([0, 1]), points) == pytest.approx(1.0)
    assert spread(points[:1], torch.tensor([0]), points[:1]) > 0


def test_linear_scores_are_distances_to_prototypes() -> None:
    prototypes, points = random(6, 4, seed=1) + 10, random(20, 4, seed=2) + 10
    weight, bias = nearest_prototype(prototypes, 2.5)
    for point, scores in zip(points, (points @ weight.T + bias).tolist(), strict=True):
        distances = [squared_distance(point, prototype) for prototype in prototypes]
        assert max(range(6), key=scores.__getitem__) == min(range(6), key=distances.__getitem__)
        for score, distance in zip(scores, distances, strict=True):
            assert score - scores[0] == pytest.approx((distances[0] - distance) / 2.5, abs=1e-3)


def test_the_loss_of_a_step_is_contrast_and_for_old_examples_what_their_similarities_changed(tmp_path: Path) -> None:
    stream = toy_stream(3, 2, 6, 0, 0)
    learner, batches = start_task(Trial(tmp_path, tiny_settings(method="crl")).taught(stream[:2]), stream[2])
    data, everyone = batches.method_data, range(len(batches.states))
    pool, before, targets = data.memory_bank.clone(), batches.represented(everyone), batches.targets.tolist()
    after = shaken(batches).represented(everyone)
    z = projected(after, data.projection)
    step = batches.step(0)
    assert 0 < step.new_count < len(step.rows)
    losses = []
    for row in step.rows:
        others = [other for other in everyone if other != row]
        below = sum(exp(dot(z[row], pool[other]) / 0.1) for other in others)
        terms = [log(exp(dot(z[row], pool[other]) / 0.1) / below) for other in others if targets[other] == targets[row]]
        losses.append(-sum(terms) / len(terms))
        if row >= batches.new_count:
            then, now = ([exp(10 * cosine(at[row], mu)) for mu in data.prototypes] for at in (before, after))
            losses[-1] += sum(
                p / sum(then) * log(p / sum(then) / (q / sum(now))) for p, q in zip(then, now, strict=True)
            )
    assert float(learner.loss(batches, step).detach()) == pytest.approx(sum(losses) / len(losses), abs=1e-3)
    seen = torch.tensor([row in step.rows for row in everyone])
    assert torch.allclose(data.memory_bank[seen], z[seen], atol=1e-4)
    assert torch.equal(data.memory_bank[~seen], pool[~seen])


def test_old_examples_are_as_similar_to_prototypes_as_before_when_nothing_has_moved(tmp_path: Path) -> None:
    stream = toy_stream(2, 2, 6, 0, 0)
    _, batches = start_task(Trial(tmp_path, tiny_settings(method="crl")).taught(stream[:1]), stream[1])
    old = batches.represented(range(batches.new_count, len(batches.states)))
    assert (
        float(divergence(batches.method_data.similar, similarity(old, batches.method_data.prototypes)).abs().max())
        < 1e-5
    )


def test_the_memory_bank_is_sampled_where_it_is_large() -> None:
    assert sorted(sampled(3, 8, seed=0).tolist()) == [0, 1, 2]
    draws = [sampled(8, 3, seed).tolist() for seed in range(600)]
    assert all(len(set(rows)) == 3 for rows in draws)
    counts = [sum(row in rows for rows in draws) for row in range(8)]
    assert all(abs(count - 225) < 60 for count in counts)  # 600 * 3 / 8, and 5 standard deviations


def test_answers_are_the_nearest_prototypes(tmp_path: Path) -> None:
    stream = toy_stream(2, 3, 8, 1, 4)
    workspace = Trial(tmp_path, tiny_settings(method="crl")).taught(stream)
    stored = workspace.store.snapshot().shared[STATIC]
    prototypes = stored.tensors(METHOD)["label.prototypes"]
    labels = stored.document(HEAD)[LABELS]
    asked = [example for task in stream for example in task.test]
    for answer, point in zip(workspace.predict(asked), representations(workspace, asked), strict=True):
        distances = [squared_distance(point, prototype) for prototype in prototypes]
        assert answer.label == labels[min(range(len(labels)), key=distances.__getitem__)]


def test_new_labels_have_the_means_of_their_examples(tmp_path: Path) -> None:
    stream = toy_stream(2, 2, 6, 0, 0)
    workspace = Trial(tmp_path, tiny_settings(method="crl")).taught(stream)
    stored = workspace.store.snapshot().shared[STATIC]
    for label in stream[1].labels:
        points = representations(workspace, [example for example in stream[1].train if example.label == label])
        mean = [sum(column) / len(points) for column in zip(*points.tolist(), strict=True)]
        row = stored.document(HEAD)[LABELS].index(label)
        assert stored.tensors(METHOD)["label.prototypes"][row].tolist() == pytest.approx(mean, abs=1e-4)


def test_a_task_taken_out_takes_its_prototypes_along(tmp_path: Path) -> None:
    first, second, third = toy_stream(3, 2, 4, 1, 2)
    workspace = Trial(tmp_path, tiny_settings(method="crl")).taught([first, second])
    workspace.remove(first.name)
    prototypes = workspace.store.snapshot().shared[STATIC].tensors(METHOD)["label.prototypes"]
    assert len(prototypes) == len(second.labels)
    workspace.learn(third)
    assert set(workspace.labels) == {*second.labels, *third.labels}


def test_a_label_with_another_name_keeps_its_prototype(tmp_path: Path) -> None:
    first, second = toy_stream(2, 2, 4, 0, 2)
    workspace = Trial(tmp_path, tiny_settings(method="crl")).taught([first])
    before = workspace.store.snapshot().shared[STATIC].tensors(METHOD)["label.prototypes"]
    workspace.rename(first.labels[1], "renamed")
    _, batches = start_task(workspace, second)
    assert batches.labels[:2] == ("renamed", first.labels[0])
    assert torch.equal(batches.method_data.prototypes, before[[1, 0]])


def test_it_forgets_less_than_sequential(tmp_path: Path) -> None:
    stream = toy_stream(3, 3, 12, 0, 8)
    accuracies = {}
    for method in ("crl", "sequential"):
        evaluation = Trial(tmp_path, tiny_settings(method=method)).taught(stream, method).evaluate()
        accuracies[method] = evaluation.whole_accuracy or 0
    assert accuracies["crl"] > accuracies["sequential"] + 0.3
