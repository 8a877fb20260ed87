"""Every text of the pages is in every language, once, and with the same values."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from conpet.dashboard.formats import Formats
from conpet.dashboard.messages import LANGUAGES, language
from scripts.messages import entries, extracted, key_of, missing

TRANSLATED = list(LANGUAGES)[1:]
VALUES = re.compile(r"%\((\w+)\)[sd]|%%")


def forms(text: str | tuple[str, ...] | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


@pytest.mark.parametrize("code", TRANSLATED)
def test_nothing_lacks_a_translation_and_nothing_is_left_over(code: str) -> None:
    known = list(entries(code))
    assert missing(code) == {}, "python scripts/messages.py prints what to add"
    assert [entry.message.id for entry in known if key_of(entry.message) not in extracted()] == []
    assert [entry.message.id for entry in known if entry.message.fuzzy] == []
    assert [entry.message.id for entry in known if not all(map(str.strip, forms(entry.message.string)))] == []


@pytest.mark.parametrize("code", TRANSLATED)
def test_a_message_has_one_translation_with_the_values_of_the_original(code: str) -> None:
    of_message = defaultdict(set)
    for entry in entries(code):
        of_message[key_of(entry.message)].add(str(entry.message.string))
        wanted = set(VALUES.findall(forms(entry.message.id)[-1])) - {""}
        for form in forms(entry.message.string):
            assert set(VALUES.findall(form)) - {""} == wanted, entry.message.id
            assert "%" not in VALUES.sub("", form), entry.message.id
    assert {key: found for key, found in of_message.items() if len(found) > 1} == {}


def test_numbers_follow_their_message() -> None:
    spoken = language("en")
    assert [spoken.ngettext("%(num)s task", "%(num)s tasks", number) for number in (1, 1200)] == [
        "1 task",
        "1,200 tasks",
    ]
    assert spoken.gettext("100%%") == "100%"


@pytest.mark.parametrize(
    ("name", "arguments", "english", "japanese"),
    [
        ("number", (1234.5, 1), "1,234.5", "1,234.5"),
        ("percent", (0.9346,), "93.5%", "93.5%"),
        ("percent", (0.5, 0), "50%", "50%"),
        ("points", (-0.016,), "−1.6", "−1.6"),
        ("points", (0.02,), "+2.0", "+2.0"),
        ("money", (1234.5, "EUR"), "€1,234.50", "€1,234.50"),
        ("money", (0.0123, "USD"), "$0.0123", "$0.0123"),
        ("money", (5.4, "JPY"), "¥5", "￥5"),
        ("money", (0.00001, "EUR"), "<€0.0001", "<€0.0001"),
        ("size", (64 << 20,), "64.0 MiB", "64.0 MiB"),
        ("size", (999,), "999 B", "999 B"),
        ("duration", (0.0123,), "12 ms", "12 ms"),
        ("duration", (3.21,), "3.2 seconds", "3.2 秒"),
        ("duration", (200,), "3 minutes", "3 分"),
        ("percent", (None,), "–", "–"),
    ],
)
def test_values_are_written_as_the_language_does(
    name: str, arguments: tuple[float | None, ...], english: str, japanese: str
) -> None:
    assert [getattr(Formats(language(code)), name)(*arguments) for code in ("en", "ja")] == [english, japanese]
