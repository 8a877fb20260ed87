"""Labels: forms of one name, names that are numbers, too few examples, imbalance, no held-out examples."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from conpet.data.quality.characters import without_invisible
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TEST, TRAIN, VALIDATION, Data, TaskRows, by_label
from conpet.errors import plural

FEW_TRAINING = 3
"""A label with fewer training examples is reported."""
FEW_HELD_OUT = 5
"""With fewer test examples, the accuracy of a label is only rough: one error is 20 points or more."""
IMBALANCE = 20
"""Times as many examples as the median label."""
_SHOWN = 10
_SEPARATORS = re.compile(r"[\s_\-/.:|]+")
_AFTER_NAME = re.compile(r"[.,;:!?'\"`]+$|^['\"`]+")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def find_label_forms(data: Data) -> Iterator[Finding]:
    """Yield a finding for each row whose label is probably another form of a more frequent label.

    Within a task, the fix uses the most frequent form, or that of the label to which rows are added. A label that is
    like one of another task is only reported.
    """
    first_owner: dict[str, tuple[str, str]] = {}
    for label, owner in data.owners.items():
        first_owner.setdefault(label_key(label), (owner, label))
    for task in data.tasks:
        if not task.labelled:
            continue
        counts = Counter(row.label for row in task.rows if row.label.strip())
        train = Counter(row.label for row in task.subsets.get(TRAIN, ()))
        forms: dict[str, list[str]] = defaultdict(list)
        for label in counts:
            forms[label_key(label)].append(label)
        usual = {key: _most_frequent(labels, train, counts) for key, labels in forms.items()}
        usual |= {key: label for label in task.owners if (key := label_key(label)) in usual}
        yield from _other_forms(task, usual)
        yield from _forms_of_other_tasks(task, usual, first_owner)
        for key, label in usual.items():
            first_owner.setdefault(key, (task.name, label))


def _other_forms(task: TaskRows, usual: Mapping[str, str]) -> Iterator[Finding]:
    for row in task.rows:
        if not row.label.strip():
            continue
        form = usual[label_key(row.label)]
        if form != row.label:
            yield Finding(
                "label-forms",
                f"label {row.label!r} is probably {form!r}",
                row,
                becomes=row.example.labelled(form),
                fix=f"label becomes {form!r}",
            )


def _forms_of_other_tasks(
    task: TaskRows, usual: Mapping[str, str], owners: Mapping[str, tuple[str, str]]
) -> Iterator[Finding]:
    for key, label in usual.items():
        owner, known = owners.get(key, (task.name, label))
        if owner != task.name and known != label:
            yield Finding("label-forms", f"label {label!r} is probably {known!r} of task {owner!r}", file=task.source)


def _most_frequent(labels: Sequence[str], train: Counter[str], counts: Counter[str]) -> str:
    """Return the form that most rows have, stripped; of equally frequent ones the first in the file."""
    best = max(labels, key=lambda label: (train[label], counts[label], label == label.strip()))
    return unicodedata.normalize("NFC", " ".join(without_invisible(best).split()))


def label_key(label: str) -> str:
    """Return a form of a label in which names that differ by blanks, case, width or punctuation are equal.

    Signs that tell names apart are kept: "C", "C++" and "C#", "1.5" and "15", "-1" and "1".
    """
    folded = unicodedata.normalize("NFKC", without_invisible(label)).strip()
    folded = _AFTER_NAME.sub("", folded).casefold()
    key = _SEPARATORS.sub(lambda match: _separator(folded, match), folded)
    return key or folded


def _separator(text: str, match: re.Match[str]) -> str:
    before, after = text[: match.start()][-1:], text[match.end() :][:1]
    if after.isdigit() and (before.isdigit() or not before):
        return match[0].strip() or " "
    return ""


def find_label_names(data: Data) -> Iterator[Finding]:
    """Yield a finding for each task whose labels are numbers only."""
    for task in data.tasks:
        labels = by_label(task.subsets.get(TRAIN, ())) if task.labelled else {}
        if labels and all(_NUMBER.fullmatch(label.strip()) for label in labels):
            yield Finding("numeric-labels", f"{plural(len(labels), 'label')}: {_listed(labels)}", file=task.source)


def find_label_counts(data: Data) -> Iterator[Finding]:
    """Yield findings on labels with few training or held-out examples, and on imbalance."""
    for task in data.tasks:
        train = {label: len(rows) for label, rows in by_label(task.subsets.get(TRAIN, ())).items()}
        if not train or not task.labelled:
            continue
        few = sorted(label for label, count in train.items() if count < FEW_TRAINING)
        if few:
            yield Finding(
                "few-examples",
                f"{plural(len(few), 'label')} with fewer than {FEW_TRAINING} training examples: {_listed(few)}",
                file=task.source,
            )
        median = sorted(train.values())[len(train) // 2]
        rare = {label: count for label, count in train.items() if count * IMBALANCE <= max(train.values())}
        if rare:
            most = max(train, key=lambda label: train[label])
            yield Finding(
                "imbalance",
                f"{most!r} has {train[most]:,} training examples, the median label {median:,}, "
                f"and {plural(len(rare), 'label')} at most a {IMBALANCE}th of the most frequent: {_listed(rare)}",
                file=task.source,
            )
        yield from _held_out(task, list(train))


def _held_out(task: TaskRows, labels: Sequence[str]) -> Iterator[Finding]:
    if not task.subsets.get(TEST):
        return  # missing: a test set is split off; empty: reported as such
    counts = {label: len(rows) for label, rows in by_label(task.subsets[TEST]).items()}
    none = [label for label in labels if not counts.get(label)]
    few = [label for label in labels if 0 < counts.get(label, 0) < FEW_HELD_OUT]
    if none:
        yield Finding(
            "no-held-out", f"{plural(len(none), 'label')} without test examples: {_listed(none)}", file=task.source
        )
    if few:
        yield Finding(
            "no-held-out",
            f"{plural(len(few), 'label')} with fewer than {FEW_HELD_OUT} test examples: {_listed(few)}",
            file=task.source,
        )


def find_empty_files(data: Data) -> Iterator[Finding]:
    """Yield a finding for each test or validation file without rows."""
    lost = {TEST: "no accuracy is measured for this task", VALIDATION: "nothing is chosen by validation examples"}
    for task in data.tasks:
        for subset, then in lost.items():
            if subset in task.subsets and not task.subsets[subset]:
                yield Finding(
                    "empty-file",
                    f"the {subset} file has no rows: {then}; delete the file to split a {subset} set off the training "
                    "rows",
                    file=task.source,
                )


def _listed(labels: Sequence[str] | Mapping[str, object]) -> str:
    shown = ", ".join(map(repr, list(labels)[:_SHOWN]))
    return f"{shown} and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else shown
