"""Rows that are probably mislabelled, and labels that are hard to tell apart, by out-of-fold probabilities.

Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"): the
threshold of a label is the mean probability of that label over the rows that have it. A row counts as another label
if that label's probability is above its threshold, and the largest of those that are. The probabilities come from the
closed-form classifiers on frozen features, fitted without the rows they are computed for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import Row
from conpet.errors import plural
from conpet.features.classifiers import ClosedFormEstimator, LinearDiscriminant, Ridge
from conpet.features.feature_map import FeatureMap, View
from conpet.features.statistics import ClassSums, ClosedFormState, Gram

FOLDS = 5
DOUBT = 0.1
"""A row is reported if the probability of its own label is also below this share of the label's threshold."""
LEAST_JUDGED = 8
"""Fewest training rows of a label that is judged or suggested: with fewer, too many findings are wrong."""
FEW_ROWS, CLEAR_DOUBT = 20, 0.05
"""The rows of a label with fewer than `FEW_ROWS` rows are reported only below `CLEAR_DOUBT` instead of `DOUBT`."""
CLOSE = 0.25
"""Labels are reported as close if at least this share of the rows of one is taken for the other."""
LEAST_ROWS = 4
"""Fewest rows of a label in which a confusion counts, and fewest confused rows."""
_CLASSIFIERS: tuple[ClosedFormEstimator, ...] = (LinearDiscriminant(0.5), Ridge())
_TEMPERATURES = (0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Probabilities of labels for rows that the classifiers did not see.

    Attributes:
        rows: n rows.
        labels: C labels.
        given: Index of the label that each row has `[n]`.
        probabilities: `[n, C]`, float32.
    """

    rows: Sequence[Row]
    labels: tuple[str, ...]
    given: Tensor
    probabilities: Tensor


def out_of_fold(rows: Sequence[Row], features: Tensor, seed: int = 0) -> OutOfFold | None:
    """Return out-of-fold probabilities of the labels of rows of one kind; None if there are fewer than two labels.

    Args:
        rows: n rows with labels.
        features: Their frozen features `[n, F]`.
        seed: Seed of the folds, which divide each label's rows evenly.
    """
    names = [row.label for row in rows]
    labels = tuple(sorted(set(names)))
    if len(labels) < 2:
        return None
    column = {label: index for index, label in enumerate(labels)}
    given = torch.tensor([column[name] for name in names])
    fold = _folds(given, len(labels), seed)
    feature_map = FeatureMap(features.shape[1], 1, views=(View.RAW,))
    whole = Gram.zero(feature_map).plus(features)
    scores = [torch.full((len(rows), len(labels)), -torch.inf, dtype=torch.float32) for _ in _CLASSIFIERS]
    for number in range(min(FOLDS, len(rows))):
        inside, outside = (fold == number).nonzero()[:, 0], (fold != number).nonzero()[:, 0]
        sums = ClassSums.of(feature_map, features[outside], [names[index] for index in outside.tolist()])
        state = ClosedFormState(whole.minus(features[inside]), (sums,))
        for values, classifier in zip(scores, _CLASSIFIERS, strict=True):
            fitted = classifier.fit(state)
            columns = torch.tensor([column[label] for label in fitted.labels])
            values[inside.unsqueeze(1), columns.unsqueeze(0)] = fitted.scores(features[inside])
    probabilities = torch.stack([_calibrated(values, given) for values in scores]).mean(dim=0)
    return OutOfFold(rows, labels, given, probabilities)


def find_mislabelled(guess: OutOfFold) -> Iterator[Finding]:
    """Yield a finding for each row that is not stored and probably has a wrong label, the most doubtful first.

    Labels with fewer than `LEAST_JUDGED` rows are neither judged nor suggested (see `unjudged`).
    """
    probabilities, given = guess.probabilities, guess.given
    counts = torch.bincount(given, minlength=len(guess.labels))
    judged = counts >= LEAST_JUDGED
    own = probabilities.gather(1, given.unsqueeze(1))[:, 0]
    sums = torch.zeros(len(guess.labels), dtype=torch.float32).index_add_(0, given, own)
    thresholds = sums / counts
    confident = probabilities.masked_fill((probabilities < thresholds) | ~judged, -1.0)
    best, label = confident.max(dim=1)
    doubt = torch.where(counts < FEW_ROWS, CLEAR_DOUBT, DOUBT)
    wrong = (best >= 0) & (label != given) & (own < (doubt * thresholds)[given]) & judged[given]
    for index in sorted(wrong.nonzero()[:, 0].tolist(), key=lambda index: float(own[index] - best[index])):
        row = guess.rows[index]
        if not row.stored:
            suggestion = guess.labels[int(label[index])]
            odds = f"probabilities {own[index]:.2f} and {best[index]:.2f}"
            message = f"label {row.label!r} is probably {suggestion!r} ({odds})"
            yield Finding("mislabelled", message, row)


def unjudged(guess: OutOfFold) -> list[str]:
    """Return the labels of rows that are not stored which have too few rows to be judged."""
    counts = torch.bincount(guess.given, minlength=len(guess.labels)).tolist()
    new = {row.label for row in guess.rows if not row.stored}
    return [label for label, count in zip(guess.labels, counts, strict=True) if label in new and count < LEAST_JUDGED]


def find_close_labels(guess: OutOfFold, owners: dict[str, str]) -> Iterator[Finding]:
    """Yield a finding for each pair of labels of which the rows are often taken for each other.

    Args:
        guess: The probabilities.
        owners: The task of each label.
    """
    size = len(guess.labels)
    pairs = guess.given * size + guess.probabilities.argmax(dim=1)
    confusion = torch.bincount(pairs, minlength=size * size).reshape(size, size)
    counts = confusion.sum(dim=1)
    shares = confusion / counts.unsqueeze(1)
    new = {row.label: row for row in reversed(guess.rows) if not row.stored}
    often = (confusion >= LEAST_ROWS) & (shares >= CLOSE)
    often.fill_diagonal_(False)
    seen: set[frozenset[int]] = set()
    for first, second in sorted(often.nonzero().tolist(), key=lambda pair: -float(shares[pair[0], pair[1]])):
        names = guess.labels[first], guess.labels[second]
        pair = frozenset((first, second))
        if pair in seen or not (names[0] in new or names[1] in new):
            continue
        seen.add(pair)
        other = "" if owners[names[0]] == owners[names[1]] else f" of task {owners[names[1]]!r}"
        taken = f"{int(confusion[first, second]):,} of {plural(int(counts[first]), 'training row')}"
        message = f"{taken} of {names[0]!r} are taken for {names[1]!r}{other}"
        yield Finding("close-labels", message, file=(new.get(names[0]) or new[names[1]]).file)


def _folds(given: Tensor, labels: int, seed: int) -> Tensor:
    """Return the fold of each row `[n]`: the rows of each label are divided evenly, at random."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(given), generator=generator)
    fold = torch.zeros(len(given), dtype=torch.int64)
    following = 0  # where the next label continues, so that small labels do not all fall into the first fold
    for label in range(labels):
        rows = order[given[order] == label]
        fold[rows] = (torch.arange(len(rows)) + following) % FOLDS
        following += len(rows)
    return fold


def _calibrated(scores: Tensor, given: Tensor) -> Tensor:
    """Return probabilities of scores, at the temperature with the least cross-entropy to the given labels."""
    finite = scores.clamp(min=-1e4)
    losses = [float(torch.nn.functional.cross_entropy(finite / heat, given)) for heat in _TEMPERATURES]
    return (finite / _TEMPERATURES[losses.index(min(losses))]).softmax(dim=1)
