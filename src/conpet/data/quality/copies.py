"""The same input in several rows: duplicates, held-out inputs among training rows, contradicting labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TEST, TRAIN, VALIDATION, Data, Row, input_identity


def find_copies(data: Data) -> Iterator[Finding]:
    """Yield findings on rows with the same input, within and across subsets and tasks, and in a workspace.

    What is left out: of a held-out input among training rows, the training row; of contradicting labels, all rows
    except those with the most frequent label (all rows if two labels are equally frequent); of duplicates, all but
    the first. Rows of a workspace stay. If that would leave a label without training rows, the held-out row goes.
    """
    groups: dict[object, list[Row]] = defaultdict(list)
    for row in data.stored:
        groups[input_identity(row.example)].append(row)
    for row in data.rows:
        groups[input_identity(row.example)].append(row)
    left = Counter((row.task, row.label) for row in data.rows if row.subset == TRAIN)
    for rows in groups.values():
        if len(rows) > 1 and not all(row.stored for row in rows):
            yield from _in_group(rows, left, data.owners)


def _in_group(rows: Sequence[Row], left: Counter[tuple[str, str]], owners: Mapping[str, str]) -> Iterator[Finding]:
    new = {row: None for row in rows if not row.stored}  # a set that keeps the order
    for finding in _against_stored(list(new), [row for row in rows if row.stored], owners):
        yield finding
        if finding.row is not None:
            del new[finding.row]
            left[finding.row.task, finding.row.label] -= finding.row.subset == TRAIN
    by_subset = {subset: [row for row in new if row.subset == subset] for subset in (TRAIN, VALIDATION, TEST)}
    test = by_subset[TEST]
    if test:
        for row in by_subset[VALIDATION]:
            yield Finding(
                "overlap",
                f"the same input is a test example ({test[0].place_from(row)})",
                row,
                other=test[0],
                leaves_out=True,
            )
        by_subset[VALIDATION] = []
    held_out = test or by_subset[VALIDATION]
    if held_out and by_subset[TRAIN]:
        yield from _leaks(by_subset[TRAIN], held_out, left)
        by_subset[TRAIN] = []
    for same_subset in by_subset.values():
        yield from _same_subset(same_subset, left)


def _against_stored(new: Sequence[Row], stored: Sequence[Row], owners: Mapping[str, str]) -> Iterator[Finding]:
    """Compare new rows with those of a workspace."""
    held_out = [row for row in stored if row.subset != TRAIN]
    trained = [row for row in stored if row.subset == TRAIN]
    for row in new if stored else ():
        if same := next((one for one in stored if _is_added_again(row, one, owners)), None):
            message = f"the same input is stored already: {same.place_from(row)}"
            yield Finding("duplicate", message, row, other=same, leaves_out=True)
        elif row.subset == TRAIN and held_out:
            other = next((one for one in held_out if one.subset == TEST), held_out[0])
            yield Finding(
                "leak", f"trains on a held-out input: {other.place_from(row)}", row, other=other, leaves_out=True
            )
        elif row.subset != TRAIN and trained:
            other = trained[0]
            yield Finding(
                "leak", f"the same input was trained on: {other.place_from(row)}", row, other=other, leaves_out=True
            )
        else:
            other = (trained or held_out)[0]
            message = f"label {row.label!r} contradicts {other.place_from(row)}, which has the same input"
            yield Finding("contradiction", message, row, other=other, leaves_out=True)


def _is_added_again(row: Row, stored: Row, owners: Mapping[str, str]) -> bool:
    """Return whether a row of a known label is stored already; the labels of stored test rows are hidden."""
    owner = owners.get(row.label)
    return owner is not None and (stored.label == row.label if stored.label else stored.task == owner)


def _leaks(train: Sequence[Row], held_out: Sequence[Row], left: Counter[tuple[str, str]]) -> Iterator[Finding]:
    """Report training rows with a held-out input; the training rows go, unless they are the last of their label."""
    counts = Counter((row.task, row.label) for row in train)
    last = any(left[label] <= count for label, count in counts.items())
    kept = held_out[0]
    for row in train:
        task = "" if row.task == kept.task else f" of task {kept.task!r}"
        yield Finding(
            "leak",
            f"the same input is a {kept.subset} example{task} ({kept.place_from(row)})",
            row,
            other=kept,
            leaves_out=not last,
            fix=f"{kept.place_from(row)} left out: the label has no other training row" if last else None,
        )
        if not last:
            left[row.task, row.label] -= 1
    for row in held_out if last else ():
        message = f"the same input is a training example ({train[0].place_from(row)}), the last of its label"
        yield Finding("leak", message, row, other=train[0], leaves_out=True)


def _same_subset(rows: Sequence[Row], left: Counter[tuple[str, str]]) -> Iterator[Finding]:
    """Report rows of one subset with the same input: contradictions if their labels differ, else duplicates."""
    if len(rows) < 2:
        return
    counts = Counter((row.task, row.label) for row in rows)
    (best, most), *others = counts.most_common()
    tied = any(count == most for _, count in others)
    kept = [row for row in rows if (row.task, row.label) == best]
    for row in rows if others else ():
        if tied or (row.task, row.label) != best:
            other = next(one for one in rows if (one.task, one.label) != (row.task, row.label))
            task = "" if other.task == row.task else f" of task {other.task!r}"
            place = f"{other.place_from(row)}{task}"
            yield Finding(
                "contradiction",
                f"label {row.label!r} contradicts {place}: the same input has {other.label!r}"
                if other.label != row.label
                else f"the same row is {place}: a label, and so a row, belongs to one task",
                row,
                other=other,
                leaves_out=True,
            )
            left[row.task, row.label] -= row.subset == TRAIN
    for row in () if tied and others else kept[1:]:
        yield Finding("duplicate", f"is a copy of {kept[0].place_from(row)}", row, other=kept[0], leaves_out=True)
        left[row.task, row.label] -= row.subset == TRAIN
