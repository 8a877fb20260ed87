"""Held-out sets split off: stratified, by seed, never through copies of one input."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from conpet.data import Example
from conpet.data.held_out import halves, split_off

EXAMPLES = [Example.of_text(f"text {at}", f"label {at % 3}") for at in range(60)]


def test_each_label_gives_its_share() -> None:
    kept, taken = split_off(EXAMPLES, 0.2, seed=0)
    assert Counter(example.label for example in taken) == {"label 0": 4, "label 1": 4, "label 2": 4}
    assert len(kept) == 48


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert set(split_off(shuffled, 0.2, seed=0)[1]) == set(split_off(EXAMPLES, 0.2, seed=0)[1])
    assert set(split_off(EXAMPLES, 0.2, seed=1)[1]) != set(split_off(EXAMPLES, 0.2, seed=0)[1])


def test_small_labels() -> None:
    sizes = {"one": 1, "two": 2, "three": 3, "four": 4}
    examples = [Example.of_text(f"{label} {at}", label) for label, size in sizes.items() for at in range(size)]
    _, taken = split_off(examples, 0.1, seed=0)
    assert Counter(example.label for example in taken) == {"three": 1, "four": 1}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3))),
    st.integers(0, 5),
    st.sampled_from([0.1, 0.2]),
)
def test_nothing_is_lost_and_copies_stay_together(rows: list[tuple[int, int]], seed: int, share: float) -> None:
    examples = [Example.of_text(f"{label} {text}", str(label)) for text, label in rows]
    kept, taken = split_off(examples, share, seed)
    assert Counter(kept) + Counter(taken) == Counter(examples)
    assert not set(kept) & set(taken)
    assert {example.label for example in kept} == {example.label for example in examples}
    for label in {example.label for example in examples}:
        inputs = len({example for example in examples if example.label == label})
        expected = max(1, round(share * inputs)) if inputs >= 3 else 0
        assert len({example for example in taken if example.label == label}) == expected


def test_halves_have_as_many_of_each_label() -> None:
    first, second = halves(EXAMPLES, seed=0)
    for half in (first, second):
        assert Counter(example.label for example in half) == {"label 0": 10, "label 1": 10, "label 2": 10}
    assert Counter(first) + Counter(second) == Counter(EXAMPLES)


def test_halves_depend_on_the_seed_and_not_on_the_order_of_rows() -> None:
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert set(halves(shuffled, seed=0)[0]) == set(halves(EXAMPLES, seed=0)[0])
    assert set(halves(EXAMPLES, seed=1)[0]) != set(halves(EXAMPLES, seed=0)[0])


def test_labels_with_one_input_go_to_the_halves_in_turn_and_copies_stay_together() -> None:
    examples = [Example.of_text(f"text {at}", f"label {at}") for at in range(7)]
    first, second = halves([*examples, *examples], seed=0)
    assert (len(first), len(second)) == (8, 6)
    assert not set(first) & set(second)
