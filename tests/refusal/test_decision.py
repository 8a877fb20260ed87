from __future__ import annotations

import pytest
import torch

from conpet.config import RefusalConfig
from conpet.refusal.calibration import Thresholds
from conpet.refusal.decision import Choice, choose_by_costs, choose_by_coverage


def chosen(probabilities: list[float], **costs: float) -> Choice:
    rows = torch.tensor([probabilities], dtype=torch.float64)
    return choose_by_costs(rows, rows.sum(dim=1), RefusalConfig(**costs))[0]


@pytest.mark.parametrize(
    ("probabilities", "decision", "columns"),
    [
        ([0.01, 0.95, 0.02], "answer", ()),
        ([0.5, 0.03, 0.44], "ask", (0, 2)),
        ([0.5, 0.01, 0.01], "ask", (0,)),
        ([0.02, 0.05, 0.01], "decline", ()),
        ([0.0, 0.0, 0.0], "decline", ()),
        ([0.97], "answer", ()),
        ([0.5], "ask", (0,)),
    ],
)
def test_the_default_costs_answer_what_is_sure_and_decline_what_belongs_to_nothing(
    probabilities: list[float], decision: str, columns: tuple[int, ...]
) -> None:
    choice = chosen(probabilities)
    assert (choice.decision, choice.columns) == (decision, columns)
    assert choice.probabilities == tuple(probabilities[column] for column in columns)


def test_the_decision_is_the_one_with_the_lowest_expected_cost() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(300, generator=generator, dtype=torch.float64)
    rows = (4 * torch.randn(300, 4, generator=generator, dtype=torch.float64)).softmax(dim=1) * inside.unsqueeze(1)
    error, question, refusal = 7.0, 1.5, 2.0
    choices = choose_by_costs(rows, inside, RefusalConfig(error=error, question=question, refusal=refusal))
    assert {choice.decision for choice in choices} == {"answer", "ask", "decline"}
    for row, belongs, choice in zip(rows.tolist(), inside.tolist(), choices, strict=True):
        outside = refusal * (1 - belongs)
        ranked = sorted(row, reverse=True)
        listed = next(sum(ranked[:k]) for k in range(1, 5) if sum(ranked[:k]) >= 0.9 * belongs or k == 4)
        costs = {
            "answer": error * (1 - ranked[0]),
            "ask": question + error * (belongs - listed) + outside,
            "decline": error * belongs + outside,
        }
        assert costs[choice.decision] == pytest.approx(min(costs.values()))
        if choice.decision == "ask":
            assert sum(choice.probabilities) == pytest.approx(listed)


def test_costs_move_the_decision() -> None:
    unsure = [0.5, 0.3, 0.1]
    assert chosen(unsure).decision == "ask"
    assert chosen(unsure, question=20.0).decision == "answer"
    assert chosen(unsure, error=0.1, question=0.2, refusal=0.0).decision == "answer"
    assert chosen([0.02, 0.02], refusal=50.0).decision == "answer"


def test_a_question_has_no_more_candidates_than_asked_for() -> None:
    even = [0.19] * 5
    assert len(chosen(even).columns) == 5
    assert len(chosen(even, candidates=3).columns) == 3


def test_a_coverage_answers_with_what_reaches_its_threshold() -> None:
    thresholds = Thresholds({"a": 0.2, "b": 0.6, "c": 0.1}, (), True)
    rows = torch.tensor([[0.3, 0.5, 0.0], [0.2, 0.6, 0.15], [0.1, 0.5, 0.05]], dtype=torch.float64)
    choices = choose_by_coverage(rows, rows.sum(dim=1), ["a", "b", "c"], thresholds)
    assert [choice.decision for choice in choices] == ["answer", "ask", "decline"]
    assert choices[1].columns == (1, 0, 2)
    assert choices[1].probabilities == pytest.approx((0.6, 0.2, 0.15))
    assert "0.95" in choices[1].reason
