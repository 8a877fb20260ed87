"""Split labels into artificial pieces to get more labels: to measure costs, never accuracy."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from conpet.data.example import Example
from conpet.data.groups import numbered
from conpet.data.labelled import SUBSETS, Grouping, LabelledData, by_label
from conpet.errors import ConfigError


def in_pieces(data: LabelledData, tasks: int, labels_per_task: int, seed: int = 0) -> tuple[LabelledData, Grouping]:
    """Cut the labels of a data set into enough pieces for a number of tasks; each piece becomes a label.

    The pieces of a label are random, so accuracy on such a stream has no meaning. It measures the cost of learning many
    tasks on real inputs.

    In each subset, the distinct inputs of a label are ordered by a seeded hash and dealt to its pieces; a piece can
    have no validation or test example. Labels with more training examples are cut into more pieces; labels with
    very few may be left out. Where possible, a task gets pieces of different labels.

    Args:
        data: The data.
        tasks: Number of tasks.
        labels_per_task: Pieces per task.
        seed: Seed of the hash.

    Returns:
        The data with pieces ("LABEL#3") as labels, and the tasks.

    Raises:
        ConfigError: There are fewer training examples than pieces.
    """
    rows = {subset: by_label(getattr(data, subset)) for subset in SUBSETS}
    sizes = {label: len(examples) for label, examples in rows["train"].items()}
    wanted = tasks * labels_per_task
    if wanted > sum(sizes.values()):
        raise ConfigError(
            f"{tasks} tasks of {labels_per_task} labels need at least {wanted} training examples; {data.name} has "
            f"{sum(sizes.values())} distinct ones"
        )
    counts = _pieces(sizes, wanted)
    train, validation, test = (tuple(_relabelled(rows[subset], counts, seed)) for subset in SUBSETS)
    order = sorted((number, label) for label, count in counts.items() for number in range(count))
    names = [_name(label, number, counts[label]) for number, label in order]
    groups = [names[first : first + labels_per_task] for first in range(0, wanted, labels_per_task)]
    return replace(data, train=train, validation=validation, test=test, groupings={}), numbered(groups)


def _pieces(sizes: Mapping[str, int], wanted: int) -> Counter[str]:
    """Return the number of pieces of each label, adding one at a time to the label whose pieces stay largest."""
    shares = sorted((-size / count, label) for label, size in sizes.items() for count in range(1, size + 1))
    return Counter(label for _, label in shares[:wanted])


def _relabelled(rows: Mapping[str, Iterable[Example]], counts: Mapping[str, int], seed: int) -> Iterator[Example]:
    for label in counts:
        for place, example in enumerate(sorted(rows.get(label, ()), key=lambda row: _hash(row, seed))):
            yield example.labelled(_name(label, place % counts[label], counts[label]))


def _hash(example: Example, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{example.input_key!r}".encode(), digest_size=16).digest()


def _name(label: str, number: int, count: int) -> str:
    return f"{label}#{number + 1:0{len(str(count))}d}"
