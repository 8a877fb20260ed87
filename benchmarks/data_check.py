"""How much of what is wrong with data does `conpet data check` find? Faults are planted in three public data sets.

For each finder: precision and recall on planted faults, and findings on the data as published. Accuracy of LDA on the
test examples with planted faults, before and after the fix. The finder of flipped labels on samples with few rows of
each label, of all labels and of a few. Processor seconds for 100,000 rows without a backbone.

    python benchmarks/data_check.py
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from choose_features import drawn
from provenance import provenance, write_result
from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.commands.check_data import backbone_reading
from conpet.data import Example, Kind
from conpet.data.benchmarks import read_data
from conpet.data.quality.examination import Examination, Reading, examine
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TEST, TRAIN, Data, Row, TaskRows
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.feature_map import FeatureMap, View
from conpet.features.statistics import ClassSums, ClosedFormState, Gram

BACKBONE = "minilm-l6"
DATA = {"clinc150": (15, 6), "hwu64": (30, 10), "semeval2010_task8": (80, 30)}
"""Most training and test examples per label."""
FLIPPED = (0.05, 0.1, 0.2)
FEW, FEW_FLIPPED, FEW_DRAWS, FEW_LABELS = (5, 10, 20), 0.1, 5, 5
"""Small samples: rows of a label, share of flipped labels, number of samples, and labels of the smallest ones."""
PLANTED = 0.05
"""Share of the rows with each other fault."""
MANY = 100_000
GERMAN = ("wann", "ist", "das", "auf", "und", "wie", "kann", "ich", "mein", "nicht", "mit", "der", "die", "für", "eine")


def main() -> None:
    made_by = provenance()
    backbone = Backbone(load_backbone(BACKBONE, dtype="auto", device="cpu"))
    features = Memo(backbone)
    reading = replace(backbone_reading(backbone), features=features, stored=None)
    results = {}
    for name, (train, test) in DATA.items():
        started = time.perf_counter()
        results[name] = measure(name, train, test, reading)
        print(name, round(time.perf_counter() - started), results[name], flush=True)
    about = {
        "backbone": BACKBONE,
        "train_and_test_per_label": DATA,
        "share_planted": PLANTED,
        "data": results,
        "seconds": {"rows": MANY, **seconds_for_many()},
    }
    print(write_result("data-check", about, made_by))


class Memo:
    """Computes the features of each input once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.known: dict[Any, Tensor] = {}

    def __call__(self, examples: Sequence[Example], template: str | None) -> Tensor:
        new = {example.input_key: example for example in examples if example.input_key not in self.known}
        if new:
            computed = self.backbone.states(list(new.values()), template, keep=False).features
            self.known |= dict(zip(new, computed, strict=True))
        return torch.stack([self.known[example.input_key] for example in examples])


@dataclass
class Sample:
    """Training and test examples."""

    train: list[Example]
    test: list[Example]

    def data(self, train: Sequence[Example] | None = None) -> Data:
        """Return the data, with other training examples if given."""
        subsets = {TRAIN: self.train if train is None else train, TEST: self.test}
        rows = {
            subset: [Row("t", subset, subset, number, example) for number, example in enumerate(examples, start=1)]
            for subset, examples in subsets.items()
        }
        return Data("t", (TaskRows("t", "t", rows),))


def planted_row(finding: Finding, wrong: set[int]) -> int:
    """Return the row of a finding, counted from 0: the planted one of a pair."""
    rows = [row.number - 1 for row in (finding.row, finding.other) if row is not None and row.subset == TRAIN]
    return next((row for row in rows if row in wrong), rows[0])


Plant = Callable[[Sample, random.Random], tuple[list[Example], set[int]]]


def measure(name: str, train: int, test: int, reading: Reading) -> dict[str, Any]:
    """Return the results of a data set."""
    source = read_data(name, ())
    published = Sample(drawn(source.train, train), drawn(source.test, test))
    on_clean = examine(published.data(), reading)
    sample = Sample(*(fixed(on_clean, subset) for subset in (TRAIN, TEST)))
    clean = accuracy(sample.train, sample.test, reading)
    result: dict[str, Any] = {
        "rows": len(published.train) + len(published.test),
        "training_rows": len(sample.train),
        "labels": len({example.label for example in sample.train}),
        "found_as_published": counts(on_clean),
        "accuracy": clean,
        "flipped": {},
        "few": {
            "all labels": few(source.train, None, reading),
            f"{FEW_LABELS} labels": few(source.train, FEW_LABELS, reading),
        },
        "planted": {},
    }
    for share in FLIPPED:
        result["flipped"][str(share)] = flipped(sample, share, reading)
    for fault, plant in PLANTS.items():
        if fault == "language" and sample.train[0].kind is not Kind.TEXT:
            continue
        result["planted"][fault] = planted(sample, plant, fault, reading)
    return result


def flipped(sample: Sample, share: float, reading: Reading) -> dict[str, Any]:
    """Give a share of the training rows another label; find and drop them."""
    draw = random.Random(1)
    labels = sorted({str(example.label) for example in sample.train})
    wrong = set(draw.sample(range(len(sample.train)), round(share * len(sample.train))))
    train = [
        example.labelled(draw.choice([label for label in labels if label != example.label]))
        if row in wrong
        else example
        for row, example in enumerate(sample.train)
    ]
    done = examine(sample.data(train), reading, drop_mislabelled=True)
    found = {one.row.number - 1 for one in done.findings if one.code == "mislabelled" and one.row}
    return {
        **rates(found, wrong),
        "accuracy": accuracy(train, sample.test, reading),
        "accuracy_fixed": accuracy(fixed(done, TRAIN), sample.test, reading),
    }


def few(examples: Sequence[Example], labels: int | None, reading: Reading) -> dict[str, Any]:
    """Find flipped labels in samples with few rows of each label, and false alarms in the same samples without them.

    Args:
        examples: The rows to draw from.
        labels: Number of labels of a sample; None for all.
        reading: How the backbone reads them.
    """
    results = {}
    for count in FEW:
        totals: Counter[str] = Counter()
        for number in range(FEW_DRAWS if labels is not None else 1):
            draw = random.Random(number)
            names = sorted({str(example.label) for example in examples})
            chosen = set(names if labels is None else draw.sample(names, labels))
            train = drawn([example for example in examples if example.label in chosen], count)
            wrong = set(draw.sample(range(len(train)), round(FEW_FLIPPED * len(train))))
            flips = [
                one.labelled(draw.choice(sorted(chosen - {str(one.label)}))) if at in wrong else one
                for at, one in enumerate(train)
            ]
            hits, alarms = mislabelled(flips, reading), mislabelled(train, reading)
            totals.update(
                rows=len(train),
                planted=len(wrong),
                found=len(hits),
                right=len(hits & wrong),
                false_alarms_on_clean=len(alarms),
            )
        precision = totals["right"] / totals["found"] if totals["found"] else None
        results[str(count)] = {**totals, "precision": precision, "recall": totals["right"] / totals["planted"]}
    return results


def mislabelled(train: Sequence[Example], reading: Reading) -> set[int]:
    """Return the training rows that are found to be mislabelled, counted from 0."""
    done = examine(Sample(list(train), []).data(), reading)
    return {one.row.number - 1 for one in done.findings if one.code == "mislabelled" and one.row}


def planted(sample: Sample, plant: Plant, fault: str, reading: Reading) -> dict[str, Any]:
    """Add or change training rows; find and fix them."""
    train, wrong = plant(sample, random.Random(2))
    done = examine(sample.data(train), replace(reading, features=None))
    of_fault = [one for one in done.findings if one.code == fault and one.row and one.row.subset == TRAIN]
    # A pair is found at its planted row or at the other one.
    found = {planted_row(one, wrong) for one in of_fault}
    result = rates(found, wrong)
    if fault in ("leak", "near-leak", "contradiction"):
        result["accuracy"] = accuracy(train, sample.test, reading)
        result["accuracy_fixed"] = accuracy(fixed(done, TRAIN), sample.test, reading)
    return result


def appended(make: Callable[[Example, random.Random, list[str]], Example], *, of_test: bool = False) -> Plant:
    """Return a plant that appends changed copies of rows."""

    def plant(sample: Sample, draw: random.Random) -> tuple[list[Example], set[int]]:
        labels = sorted({str(example.label) for example in sample.train})
        source = sample.test if of_test else sample.train
        chosen = draw.sample(source, round((2 if of_test else 1) * PLANTED * len(source)))
        rows = [make(example, draw, labels) for example in chosen]
        return [*sample.train, *rows], set(range(len(sample.train), len(sample.train) + len(rows)))

    return plant


def changed(make: Callable[[Example, random.Random, list[str]], Example]) -> Plant:
    """Return a plant that changes rows."""

    def plant(sample: Sample, draw: random.Random) -> tuple[list[Example], set[int]]:
        wrong = set(draw.sample(range(len(sample.train)), round(PLANTED * len(sample.train))))
        return [make(one, draw, []) if row in wrong else one for row, one in enumerate(sample.train)], wrong

    return plant


def same(example: Example, draw: random.Random, labels: list[str]) -> Example:
    return example


def other_label(example: Example, draw: random.Random, labels: list[str]) -> Example:
    return example.labelled(draw.choice([label for label in labels if label != example.label]))


def edited(example: Example, draw: random.Random, labels: list[str]) -> Example:
    """Change case and punctuation, or one letter, or add a word; the marked spans stay."""
    words = list(example.tokens) if example.tokens else example.text.split()
    spans = [span for span in (example.head, example.tail, example.mention) if span is not None]
    free = [at for at in range(len(words)) if not any(span.start <= at < span.end for span in spans)] or [0]
    at = draw.choice(free)
    way = draw.choice(("case", "letter", "word"))
    if way == "letter" and len(words[at]) > 1:
        cut = draw.randrange(1, len(words[at]))
        words[at] = words[at][: cut - 1] + words[at][cut] + words[at][cut - 1] + words[at][cut + 1 :]
    elif way == "word":
        words[-1] = f"{words[-1]} please" if not example.tokens else f"{words[-1]}."
    if words == (list(example.tokens) if example.tokens else example.text.split()):
        words[at] = words[at].swapcase() + ","
    return replace(example, tokens=tuple(words)) if example.tokens else replace(example, text=" ".join(words))


def with_text(change: Callable[[str, random.Random], str]) -> Callable[[Example, random.Random, list[str]], Example]:
    """Return a change of one word of an example."""

    def make(example: Example, draw: random.Random, labels: list[str]) -> Example:
        if example.tokens:
            at = draw.randrange(len(example.tokens))
            tokens = (*example.tokens[:at], change(example.tokens[at], draw), *example.tokens[at + 1 :])
            return replace(example, tokens=tokens)
        return replace(example, text=change(example.text, draw))

    return make


def zero_width(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice("\u200b\ufeff\u200d\x07\u00ad") + text[at:]


def personal(text: str, draw: random.Random) -> str:
    number = draw.randrange(1000, 9999)
    return f"{text} " + draw.choice((f"a{number}@mail.example.org", f"+44 20 7946 {number}", f"10.0.{number % 256}.7"))


def german(text: str, draw: random.Random) -> str:
    return " ".join(draw.sample(GERMAN, 7))


def other_form(example: Example, draw: random.Random, labels: list[str]) -> Example:
    label = str(example.label)
    return example.labelled(
        draw.choice((label.upper(), label.replace("_", " ").replace("-", " ").title(), f"{label}."))
    )


PLANTS: dict[str, Plant] = {
    "duplicate": appended(same),
    "near-duplicate": appended(edited),
    "contradiction": appended(other_label),
    "leak": appended(same, of_test=True),
    "near-leak": appended(edited, of_test=True),
    "label-forms": changed(other_form),
    "characters": changed(with_text(zero_width)),
    "personal-data": changed(with_text(personal)),
    "language": changed(with_text(german)),
}


def rates(found: set[int], wrong: set[int]) -> dict[str, Any]:
    right = len(found & wrong)
    return {
        "planted": len(wrong),
        "found": len(found),
        "precision": right / len(found) if found else 1.0,
        "recall": right / len(wrong),
    }


def counts(done: Examination) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for finding in done.findings:
        found[finding.code] += 1
    return dict(found)


def fixed(done: Examination, subset: str) -> list[Example]:
    return [row.example for row in done.fixed.rows if row.subset == subset]


def accuracy(train: Sequence[Example], test: Sequence[Example], reading: Reading) -> float:
    """Return the accuracy of LDA."""
    assert reading.features is not None
    features, names = reading.features(train, None), [str(example.label) for example in train]
    views = FeatureMap(features.shape[1], 1, views=(View.RAW,))
    state = ClosedFormState(Gram.zero(views).plus(features), (ClassSums.of(views, features, names),))
    fitted = LinearDiscriminant().fit(state)
    answers = fitted.scores(reading.features(test, None)).argmax(dim=1)
    right = [fitted.labels[answer] == example.label for answer, example in zip(answers.tolist(), test, strict=True)]
    return sum(right) / len(right)


def seconds_for_many() -> dict[str, float]:
    """Return the processor seconds of a check of many rows without a backbone: texts of three data sets, edited."""
    draw = random.Random(3)
    texts = [one for name in ("clinc150", "hwu64", "banking77") for one in read_data(name, ()).train]
    rows = list(texts)
    while len(rows) < MANY:
        rows.append(edited(draw.choice(texts), draw, []))
    data = Sample(rows, []).data()
    data = replace(data, tasks=(replace(data.tasks[0], subsets={TRAIN: data.tasks[0].subsets[TRAIN]}),))
    started = time.process_time()
    examine(data, thorough=False)
    learn = time.process_time() - started
    examine(data)
    return {"before_learning": learn, "check_quick": time.process_time() - started - learn}


if __name__ == "__main__":
    main()
