"""Accuracy from reviewed answers: unbiased although those in doubt are reviewed more, with intervals that hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

import pytest

from conpet.review.agreement import agreement_of
from conpet.review.draw import DECLINED, SURE, UNCERTAIN, Pick, pick, stratum_of
from conpet.review.estimate import DrawnAnswer, ReviewAccuracy, Stratum, accuracy_of, estimate
from conpet.review.records import ItemKind
from conpet.store.prediction_log import Drawable

WANTED = {ItemKind.RANDOM: 40, ItemKind.UNCERTAIN: 60, ItemKind.DECLINED: 30}
RATES = {SURE: 0.95, UNCERTAIN: 0.5, DECLINED: 0.7}
"""Share of right answers by stratum."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entries(number: int, generator: Random) -> list[Drawable]:
    """Return recorded predictions: one in ten declined, two in ten uncertain."""
    found = []
    for at in range(1, number + 1):
        place = generator.random()
        decision = "decline" if place < 0.1 else "ask" if place < 0.2 else "answer"
        confidence = 0.3 if 0.2 <= place < 0.3 else 0.9
        found.append(Drawable(at, float(at), decision, confidence, labelled=True, readable=True))
    return found


def reviewed(picked: Pick, right: Callable[[int], bool | None], most: int) -> Iterator[DrawnAnswer]:
    """Yield what was drawn; of each kind, the first answers were reviewed."""
    for one in picked.picked:
        answer = right(one.entry) if one.position < most else None
        yield DrawnAnswer(1, str(one.kind), one.position, one.stratum, answer, passed=False)


def accuracy(picked: Pick, right: Callable[[int], bool], most: int) -> ReviewAccuracy:
    return accuracy_of({1: picked.sizes}, {1: (NOW, NOW)}, list(reviewed(picked, right, most)))


@pytest.mark.parametrize("most", [15, 100])
def test_the_accuracy_is_unbiased_and_its_interval_holds_although_answers_in_doubt_are_reviewed_more(most: int) -> None:
    generator = Random(1)
    population = entries(1500, generator)
    strata = {one.id: stratum_of(one.decision, one.confidence, 0.5) for one in population}
    right = {one.id: generator.random() < RATES[strata[one.id]] for one in population}
    truth = sum(right.values()) / len(right)
    runs = [accuracy(pick(population, WANTED, 0.5, generator), right.__getitem__, most) for _ in range(400)]
    values = [run.estimate.value for run in runs]
    assert None not in values
    spread = (sum((value - truth) ** 2 for value in values) / len(values)) ** 0.5  # type: ignore[operator]
    assert abs(sum(values) / len(values) - truth) < 3 * spread / len(values) ** 0.5  # type: ignore[arg-type]
    held = sum(run.estimate.low <= truth <= run.estimate.high for run in runs) / len(runs)  # type: ignore[operator]
    assert held >= 0.92
    drawn = [one for _ in range(50) for one in reviewed(pick(population, WANTED, 0.5, generator), right.get, most)]
    judged = [one.right for one in drawn if one.right is not None]
    assert sum(judged) / len(judged) < truth - 0.05  # the plain share of right answers is far too low


def test_every_entry_is_drawn_with_the_probability_of_its_stratum() -> None:
    generator = Random(2)
    population = entries(200, generator)
    drawn = dict.fromkeys(range(1, 201), 0)
    wanted = {ItemKind.RANDOM: 20, ItemKind.UNCERTAIN: 10, ItemKind.DECLINED: 0}
    for _ in range(3000):
        picked = pick(population, wanted, 0.5, generator)
        for one in picked.picked:
            drawn[one.entry] += 1
        assert len({one.entry for one in picked.picked}) == len(picked.picked) == 30
    by_stratum: dict[str, list[int]] = {}
    for one in population:
        by_stratum.setdefault(stratum_of(one.decision, one.confidence, 0.5), []).append(drawn[one.id])
    for counts in by_stratum.values():
        mean = sum(counts) / len(counts)
        assert max(abs(count - mean) for count in counts) < 5 * (mean**0.5)
    assert sum(by_stratum[DECLINED]) / len(by_stratum[DECLINED]) == pytest.approx(300, rel=0.1)
    assert picked.sizes.keys() == {SURE, UNCERTAIN}  # declined ones are drawn as often as sure ones


def test_a_small_record_is_drawn_as_a_whole_and_what_cannot_be_read_is_counted() -> None:
    rows = [
        Drawable(4, 1.0, "answer", 0.9, labelled=True, readable=True),
        Drawable(5, 2.0, "answer", None, labelled=True, readable=True),
        Drawable(6, 3.0, "answer", 0.9, labelled=True, readable=False),
        Drawable(7, 4.0, "answer", 0.9, labelled=False, readable=True),
    ]
    picked = pick(rows, WANTED, 0.5, Random(0))
    assert {one.entry for one in picked.picked} == {4, 5}
    assert (picked.sizes, picked.last, picked.since, picked.until) == ({SURE: 1, UNCERTAIN: 1}, 7, 1.0, 4.0)
    assert (picked.unreadable, picked.unlabelled) == (1, 1)
    assert pick([], WANTED, 0.5, Random(0)).picked == ()


def test_strata_are_weighted_by_their_sizes() -> None:
    found = estimate([Stratum(SURE, 900, 10, 9), Stratum(UNCERTAIN, 100, 50, 25), Stratum(DECLINED, 0)])
    assert found.value == pytest.approx(0.9 * 0.9 + 0.1 * 0.5)
    assert (found.population, found.reviewed) == (1000, 60)
    assert 0 < (found.low or 0) < found.value < (found.high or 0) < 1  # type: ignore[operator]
    more = estimate([Stratum(SURE, 900, 100, 90), Stratum(UNCERTAIN, 100, 50, 25)])
    assert (more.high or 0) - (more.low or 0) < (found.high or 0) - (found.low or 0)
    perfect = estimate([Stratum(SURE, 1000, 20, 20)])
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.75 < (perfect.low or 0) < 0.9
    whole = estimate([Stratum(SURE, 8, 8, 6)])
    assert (whole.value, whole.low, whole.high) == (0.75, 0.75, 0.75)
    assert estimate([Stratum(SURE, 10, 5, 5), Stratum(DECLINED, 1)]).value is None
    assert estimate([]).value is None


def test_answers_after_the_first_that_waits_do_not_count_and_skipped_ones_do_not_hold_up() -> None:
    rights: list[tuple[bool | None, bool]] = [(True, False), (None, True), (False, False), (None, False), (True, False)]
    answers = [DrawnAnswer(3, "random", at, SURE, right, passed) for at, (right, passed) in enumerate(rights)]
    found = accuracy_of({3: {SURE: 100}, 4: {SURE: 50, DECLINED: 2}}, {3: (NOW, NOW), 4: (NOW, NOW)}, answers[::-1])
    assert (found.estimate.value, found.estimate.reviewed, found.estimate.population) == (0.5, 2, 100)
    assert found.skipped == 1
    assert list(found.missing) == [4]
    assert "declined" in found.missing[4]
    assert [one.estimate.value for one in found.batches] == [0.5, None]
    assert found.to_json()["decisions"][SURE]["value"] == 0.5


def test_agreement_is_krippendorffs_alpha() -> None:
    # The example of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", part C.
    table = ["123321412   ", "1233224125 3", " 3332342251 ", "12332441251 "]
    found = agreement_of([[row[at] for row in table if row[at] != " "] for at in range(12)])
    assert found.items == 11
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert agreement_of([["a", "a"], ["b", "b"], [None, None], ["a"]]).alpha == 1.0
    assert agreement_of([["a", "b"], ["b", "a"]]).observed == 0.0
    assert (agreement_of([["a", "b"], ["b", "a"]]).alpha or 0) < 0
    assert agreement_of([["a", "a"]]).alpha is None
    assert agreement_of([["a"], []]).items == 0
