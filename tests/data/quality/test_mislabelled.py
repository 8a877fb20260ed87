from __future__ import annotations

import random

import torch

from conpet.data import Example
from conpet.data.quality.mislabelled import (
    LEAST_JUDGED,
    find_close_labels,
    find_mislabelled,
    out_of_fold,
    unjudged,
)
from conpet.data.quality.rows import Row

LABELS, EACH, WIDTH = 6, 30, 16


def clustered(flipped: int, *, merged: bool = False) -> tuple[list[Row], torch.Tensor, set[int]]:
    """Return rows whose features lie around one point for each label, some of them with another label.

    With `merged`, the first two labels have the same point.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(LABELS, WIDTH, generator=generator) * 2
    if merged:
        centres[1] = centres[0]
    true = torch.arange(LABELS * EACH) % LABELS
    features = centres[true] + 0.5 * torch.randn(len(true), WIDTH, generator=generator)
    draw = random.Random(0)
    wrong = set(draw.sample(range(len(true)), flipped))
    given = [
        (label + draw.randrange(1, LABELS)) % LABELS if row in wrong else label
        for row, label in enumerate(true.tolist())
    ]
    rows = [Row("a", "train", "f", row, Example.of_text(f"{row}", f"l{label}")) for row, label in enumerate(given)]
    return rows, features, wrong


def test_flipped_labels_are_found_and_sound_ones_are_not() -> None:
    rows, features, wrong = clustered(18)
    guess = out_of_fold(rows, features)
    assert guess is not None
    found = {finding.row.number for finding in find_mislabelled(guess) if finding.row}
    assert len(found & wrong) >= 0.9 * len(wrong)
    assert len(found - wrong) <= 2
    assert not any(finding.leaves_out for finding in find_mislabelled(guess))


def test_clean_data_raises_no_alarm_and_the_suggestion_is_the_other_label() -> None:
    rows, features, _ = clustered(0)
    guess = out_of_fold(rows, features)
    assert guess is not None
    assert list(find_mislabelled(guess)) == []
    assert list(find_close_labels(guess, {f"l{label}": "a" for label in range(LABELS)})) == []
    rows[0] = rows[0].with_example(rows[0].example.labelled("l3"))
    guess = out_of_fold(rows, features)
    assert guess is not None
    (finding,) = find_mislabelled(guess)
    assert (finding.row, "probably 'l0'" in finding.message) == (rows[0], True)


def test_labels_with_few_rows_are_not_judged_and_that_can_be_said() -> None:
    rows, features, wrong = clustered(18)
    kept = [at for at, row in enumerate(rows) if row.label not in ("l0", "l1")]
    for label, count in (("l0", LEAST_JUDGED - 1), ("l1", LEAST_JUDGED)):
        kept += [at for at, row in enumerate(rows) if row.label == label][:count]
    few = [rows[at] for at in sorted(kept)]
    guess = out_of_fold(few, features[sorted(kept)])
    assert guess is not None
    assert unjudged(guess) == ["l0"]
    found = [finding for finding in find_mislabelled(guess) if finding.row]
    assert {finding.row.number for finding in found if finding.row} & wrong
    assert not any("'l0'" in finding.message for finding in found)


def test_labels_that_cannot_be_told_apart_are_named_with_the_task_of_the_older_one() -> None:
    rows, features, _ = clustered(0, merged=True)
    rows = [
        Row("old", "train", "f", row.number, row.example, stored=True) if row.label == "l1" else row for row in rows
    ]
    guess = out_of_fold(rows, features)
    assert guess is not None
    (finding,) = find_close_labels(guess, {f"l{label}": "old" if label == 1 else "a" for label in range(LABELS)})
    assert "'l0'" in finding.message
    assert "'l1'" in finding.message


def test_one_label_or_one_example_cannot_be_doubted() -> None:
    assert out_of_fold([Row("a", "train", "f", 1, Example.of_text("x", "1"))], torch.zeros(1, 4)) is None
    rows = [Row("a", "train", "f", number, Example.of_text(f"{number}", f"l{number}")) for number in range(3)]
    guess = out_of_fold(rows, torch.eye(3, 4))
    assert guess is not None
    assert list(find_mislabelled(guess)) == []
