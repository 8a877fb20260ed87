"""Each finder on rows that have what it looks for, and on rows that only look like it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from conpet.data import Example, Span
from conpet.data.quality.characters import cleaned, find_characters
from conpet.data.quality.copies import find_copies
from conpet.data.quality.finding import Finding
from conpet.data.quality.labels import (
    find_empty_files,
    find_label_counts,
    find_label_forms,
    find_label_names,
    label_key,
)
from conpet.data.quality.language import find_other_languages
from conpet.data.quality.near import find_near_copies
from conpet.data.quality.personal import masked, personal_data
from conpet.data.quality.rows import Data, Row, TaskRows

Texts = Iterable[tuple[str, str]]


def rows_of(task: str, subset: str, texts: Texts, *, stored: bool = False) -> list[Row]:
    return [
        Row(task, subset, f"{task}/{subset}", number, Example.of_text(text, label or None), stored)
        for number, (text, label) in enumerate(texts, start=1)
    ]


def data_of(*tasks: Mapping[str, Texts], stored: Iterable[Row] = (), owners: dict[str, str] | None = None) -> Data:
    """Return data of tasks named a, b, ..., each a mapping from subsets to texts with labels."""
    named = [
        TaskRows(name, name, {subset: rows_of(name, subset, texts) for subset, texts in task.items()})
        for name, task in zip("abc", tasks, strict=False)
    ]
    return Data("data", tuple(named), tuple(stored), owners or {})


def found(findings: Iterable[Finding]) -> list[tuple[str, str, int | None, bool]]:
    return [(one.code, *one.place, one.leaves_out) for one in findings]


class TestCopies:
    def test_a_held_out_input_in_training_costs_the_training_row(self) -> None:
        data = data_of({"train": [("x", "1"), ("y", "1"), ("z", "2")], "test": [("x", "1"), ("q", "2")]})
        (leak,) = find_copies(data)
        assert found([leak]) == [("leak", "a/train", 1, True)]
        assert leak.other is data.tasks[0].subsets["test"][0]

    def test_the_last_training_row_of_a_label_stays_and_the_held_out_row_goes(self) -> None:
        data = data_of({"train": [("x", "1"), ("y", "2")], "test": [("x", "1"), ("q", "2")]})
        assert found(find_copies(data)) == [("leak", "a/train", 1, False), ("leak", "a/test", 1, True)]

    def test_contradictions_keep_the_most_frequent_label_and_nothing_if_there_is_none(self) -> None:
        train = [("x", "1"), ("x", "2"), ("x", "1"), ("y", "1"), ("y", "2"), ("z", "2")]
        assert sorted(found(find_copies(data_of({"train": train})))) == [
            ("contradiction", "a/train", 2, True),
            ("contradiction", "a/train", 4, True),
            ("contradiction", "a/train", 5, True),
            ("duplicate", "a/train", 3, True),
        ]

    def test_tasks_contradict_each_other_and_leak_into_each_other(self) -> None:
        first = {"train": [("x", "1"), ("y", "1"), ("z", "2")], "test": [("t", "1")]}
        second = {"train": [("x", "3"), ("t", "4"), ("u", "3"), ("v", "4")]}
        data = data_of(first, second)
        assert sorted(found(find_copies(data))) == [
            ("contradiction", "a/train", 1, True),
            ("contradiction", "b/train", 1, True),
            ("leak", "b/train", 2, True),
        ]
        assert "of task 'a'" in next(one.message for one in find_copies(data) if one.place == ("b/train", 2))

    def test_the_same_row_in_two_tasks_is_said_to_be_that(self) -> None:
        one, other = find_copies(data_of({"train": [("x", "1"), ("y", "2")]}, {"train": [("x", "1"), ("z", "3")]}))
        assert one.message == "the same row is row 1 of b/train of task 'b': a label, and so a row, belongs to one task"
        assert other.message.startswith("the same row is row 1 of a/train of task 'a'")

    def test_rows_of_a_workspace_stay_and_are_named_by_task_and_index(self) -> None:
        stored = [
            *rows_of("old", "test", [("t0", ""), ("t", "")], stored=True),
            *rows_of("old", "train", [("s", "9")], stored=True),
        ]
        data = data_of(
            {"train": [("t", "1"), ("s", "2"), ("x", "1"), ("y", "2")], "test": [("s", "1"), ("t", "2")]},
            stored=stored,
            owners={"9": "old"},
        )
        findings = list(find_copies(data))
        assert sorted(found(findings)) == [
            ("contradiction", "a/test", 2, True),
            ("contradiction", "a/train", 2, True),
            ("leak", "a/test", 1, True),
            ("leak", "a/train", 1, True),
        ]
        leak = next(one for one in findings if one.place == ("a/train", 1))
        assert "stored test example 2 of task 'old'" in leak.message
        assert leak.other is stored[1]

    def test_more_examples_of_a_known_label_are_duplicates_of_stored_ones(self) -> None:
        stored = [
            *rows_of("old", "train", [("s", "9")], stored=True),
            *rows_of("old", "test", [("t", "")], stored=True),
        ]
        data = data_of({"train": [("s", "9")], "test": [("t", "9")]}, stored=stored, owners={"9": "old"})
        assert {code for code, *_ in found(find_copies(data))} == {"duplicate"}

    def test_validation_rows_that_are_test_rows_go(self) -> None:
        data = data_of({"train": [("p", "1"), ("q", "2")], "validation": [("x", "1")], "test": [("x", "1")]})
        assert found(find_copies(data)) == [("overlap", "a/validation", 1, True)]

    def test_spans_tell_inputs_apart_and_blanks_do_not(self) -> None:
        words = ["Ada", "met", "Bob"]
        examples = [Example.of_mention(words, Span(0, 1), "1"), Example.of_mention(words, Span(2, 3), "2")]
        rows = [Row("a", "train", "f", number, example) for number, example in enumerate(examples)]
        assert list(find_copies(Data("d", (TaskRows("a", "a", {"train": rows}),)))) == []
        blanks = data_of({"train": [("when  open", "1"), ("when open ", "2")]})
        assert {code for code, *_ in found(find_copies(blanks))} == {"contradiction"}


class TestNearCopies:
    BASE = "please tell me when the library in the old town opens on sunday morning"

    @pytest.mark.parametrize(
        "changed",
        [
            "Please, tell me when the library in the OLD town opens on Sunday morning!",
            "please tell me when the library in the old town opens on a sunday morning",
            "please tell me when the libary in the old town opens on sunday morning",
        ],
    )
    def test_case_punctuation_a_word_and_a_typo_are_nearly_equal(self, changed: str) -> None:
        data = data_of({"train": [(changed, "1"), ("something else entirely", "2")], "test": [(self.BASE, "1")]})
        (leak,) = find_near_copies(data)
        assert found([leak]) == [("near-leak", "a/train", 1, True)]

    def test_only_the_later_row_is_reported_and_other_labels_are_told(self) -> None:
        train = [
            (self.BASE, "1"),
            (f"{self.BASE}!", "1"),
            (f"{self.BASE}?", "2"),
            ("what is the fee for a lost book", "2"),
        ]
        assert found(find_near_copies(data_of({"train": train}))) == [
            ("near-duplicate", "a/train", 2, False),
            ("near-contradiction", "a/train", 3, False),
        ]

    def test_emoji_and_other_spans_are_not_nearly_equal(self) -> None:
        assert list(find_near_copies(data_of({"train": [("great 👍", "1"), ("great 👎", "2")]}))) == []
        words = self.BASE.split()
        rows = [
            Row("a", "train", "f", number, Example.of_mention(words, Span(number, number + 1), "x"))
            for number in range(5)
        ]
        assert list(find_near_copies(Data("d", (TaskRows("a", "a", {"train": rows}),)))) == []

    def test_many_rows_are_compared_in_little_time(self) -> None:
        texts = [
            (f"order {number * 7919 % 10007} of item {number} went to shelf {number * 31 % 977}", "1")
            for number in range(3000)
        ]
        data = data_of({"train": texts, "test": [("order 7919 of item 1 went to the shelf 31", "1")]})
        assert ("near-leak", "a/train", 2, True) in found(find_near_copies(data))


class TestLabels:
    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("hours", " Hours ", True),
            ("opening_hours", "Opening hours", True),
            ("openingHours", "opening-hours", True),
            ("ＡＢＣ", "abc", True),
            ("lost!", "lost", True),
            ("hou\u200brs", "hours", True),
            ("C", "C++", False),
            ("C#", "C", False),
            ("1.5", "15", False),
            ("-1", "1", False),
            ("v1", "v2", False),
        ],
    )
    def test_forms_of_one_label(self, one: str, other: str, same: bool) -> None:
        assert (label_key(one) == label_key(other)) == same

    def test_the_most_frequent_form_is_used_within_a_task_and_other_tasks_are_named(self) -> None:
        first = {"train": [("p", "Hours"), ("q", "hours"), ("r", "hours"), ("s", "fee")]}
        second = {"train": [("t", "FEE"), ("u", "lost")]}
        findings = list(find_label_forms(data_of(first, second, owners={"LOST": "old"})))
        assert [(*one.place, one.becomes and one.becomes.label) for one in findings] == [
            ("a/train", 1, "hours"),
            ("b", None, None),
            ("b", None, None),
        ]
        assert ["task 'a'" in findings[1].message, "task 'old'" in findings[2].message] == [True, True]

    def test_names_counts_and_held_out_rows(self) -> None:
        train = [(f"many {number}", "1") for number in range(60)] + [(f"few {number}", "2") for number in range(2)]
        data = data_of({"train": train, "test": [("x", "1")], "validation": []})
        assert [one.code for one in find_label_names(data)] == ["numeric-labels"]
        assert [one.code for one in find_label_counts(data)] == [
            "few-examples",
            "imbalance",
            "no-held-out",
            "no-held-out",
        ]
        assert ["validation file" in one.message for one in find_empty_files(data)] == [True]
        assert list(find_label_names(data_of({"train": [("x", "1"), ("y", "b")]}))) == []


class TestCharacters:
    @pytest.mark.parametrize(
        ("text", "code", "after"),
        [
            ("when\u200b open", "characters", "when open"),
            ("\ufeffwhen open", "characters", "when open"),
            ("bell\x07 rings", "characters", "bell rings"),
            ("cafÃ© open", "characters", "cafÃ© open"),
            ("cafe\u0301 open", "unicode", "café open"),
            ("ｗｈｅｎ open", "unicode", "ｗｈｅｎ open"),
            ("when  open", "blanks", "when open"),
            ("when\u00a0open", "blanks", "when open"),
        ],
    )
    def test_what_is_found_and_what_it_becomes(self, text: str, code: str, after: str) -> None:
        (finding,) = find_characters(rows_of("a", "train", [(text, "1")]))
        assert finding.code == code
        assert cleaned(Example.of_text(text)).text == after

    @pytest.mark.parametrize(
        "text", ["first line\nsecond line", "می\u200cخواهم", "👨\u200d👩\u200d👧", "開館時間は？", "naïve café"]
    )
    def test_joiners_line_breaks_and_other_scripts_are_left_alone(self, text: str) -> None:
        assert list(find_characters(rows_of("a", "train", [(text, "1")]))) == []
        assert cleaned(Example.of_text(text)).text == text


class TestPersonalData:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("write to ada.l+x@mail.example.org please", "e-mail address"),
            ("call +44 20 7946 0958 today", "phone number"),
            ("call (555) 010-9999 today", "phone number"),
            ("ruf 030 1234567 an", "phone number"),
            ("card 4111 1111 1111 1111 was lost", "card number"),
            ("pay to DE89 3704 0044 0532 0130 00", "IBAN"),
            ("from 192.168.10.254 it fails", "IP address"),
            ("from 2001:db8:0:0:0:ff00:42:8329 it fails", "IP address"),
        ],
    )
    def test_each_kind_is_counted_and_masked(self, text: str, kind: str) -> None:
        assert personal_data(text) == {kind: 1}
        assert f"[{kind}]" in masked(text)
        assert not any(character.isdigit() for character in masked(text))
        assert "@" not in masked(text)

    @pytest.mark.parametrize(
        "text",
        [
            "card 4111 1111 1111 1112 was lost",
            "pay to GB82 WEST 1234 5698 7654 33",
            "version 1.2.3 at 10:30 on 2024-05-17",
            "order 123456 costs 1,234.50 for 12 people",
            "from 999.168.10.254 it fails",
            "0000 0000 0000 0000",
        ],
    )
    def test_numbers_that_only_look_like_it_are_not(self, text: str) -> None:
        assert personal_data(text) == {}
        assert masked(text) == text


def languages(usual: str, odd: str) -> Iterator[int]:
    rows = rows_of("a", "train", [(f"{usual} {number}", "1") for number in range(20)] + [(odd, "1")])
    return (rows.index(one.row) for one in find_other_languages(rows) if one.row)


@pytest.mark.parametrize(
    ("usual", "odd", "is_odd"),
    [
        ("what is the fee for this book", "wann ist die Bibliothek auf und wie ist das", True),
        ("what is the fee for this book", "когда открыта библиотека", True),
        ("what is the fee for this book", "開館時間を教えてください", True),
        ("what is the fee for this book", "renew loan 4711", False),
        ("wann ist die Bibliothek auf", "what is the fee for this book", True),
        ("開館時間を教えてください", "貸出延長", False),
        ("開館時間を教えてください", "BarcelonaのRunning Toursを予約してください", False),
    ],
)
def test_rows_in_another_language_than_the_rest(usual: str, odd: str, is_odd: bool) -> None:
    assert list(languages(usual, odd)) == ([20] if is_odd else [])
