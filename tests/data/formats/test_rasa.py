"""Rasa's nlu.yml, and the Markdown of Rasa 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from conpet.data import read_stream
from tests.helpers.reading import SAMPLES, labelled, notes, problems, put, row_numbers

YAML = """version: "3.1"
nlu:
- intent: no
  examples: |
    - no - thanks
    - not [in Berlin](city) [today]{"entity": "date", "role": "from"}

    - nope
      [both](a:b) [here][{"entity": "x"}, {"entity": "y"}]
- intent: faq/ask_hours
  examples:
    - open [now](time)?
    - text: |
        - when?
      metadata: {sentiment: neutral}
    - text: "until \\"late\\""
- synonym: Berlin
  examples: |
    - the capital
- regex: zip
  examples: |
    - [0-9]{5}
---
nlu:
  - lookup: city
    examples: [Berlin]
  - intent: empty
"""

MARKDOWN = """## intent:greet
- hello [Ada](person:Ada Lovelace)
* hey there

<!-- - not this
- nor this -->
## intent: faq/ask_hours
- when [do you](x) open?
## synonym:Berlin
- the capital
## lookup:city
data/cities.txt
## regex:zip
- [0-9]{5}
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_intents_of_yaml(tmp_path: Path, newline: str) -> None:
    path = put(tmp_path / "nlu.yml", YAML.replace("\n", newline), "utf-8-sig")
    assert labelled(path) == [
        ("no - thanks", "no"),
        ("not in Berlin today", "no"),
        ("nope", "no"),
        ("open now?", "faq/ask_hours"),
        ("when?", "faq/ask_hours"),
        ('until "late"', "faq/ask_hours"),
    ]
    assert row_numbers(path) == [5, 6, 8, 12, 14, 16]
    assert notes(path) == [
        "only intents are read; left out: 1 empty intent, 1 lookup section, 1 other line, 1 regex section, "
        "1 synonym section"
    ]


def test_intents_of_markdown(tmp_path: Path) -> None:
    path = put(tmp_path / "nlu.md", MARKDOWN)
    assert labelled(path) == [
        ("hello Ada", "greet"),
        ("hey there", "greet"),
        ("when do you open?", "faq/ask_hours"),
    ]
    assert row_numbers(path) == [2, 3, 8]
    assert notes(path) == ["only intents are read; left out: 1 lookup section, 1 regex section, 1 synonym section"]


def test_a_real_file() -> None:
    rows = labelled(SAMPLES / "restaurant_nlu.yml")
    assert rows[0] == ("suggest me the closest restaurant", "locate_restaurant")
    assert rows[-1] == ("A family restaurant", "restaurant_type")


@pytest.mark.parametrize(
    ("name", "content", "row", "reason"),
    [
        ("t.yml", "nlu:\n- intent: a\n  examples: |\n  - x\n - y", 4, "not valid YAML"),
        ("t.yml", "stories:\n- story: x\n", None, "contains no training data of Rasa"),
        ("t.yml", "nlu:\n- intnet: a\n", 2, "is no section of Rasa's training data"),
        ("t.yml", "nlu:\n- intent:\n  examples: |\n    - x\n", 2, "an intent needs a name"),
        ("t.yml", b"nlu:\n- intent: caf\xe9\n", None, "it looks like cp1252"),
        ("t.md", "# Stories\n* greet\n", None, 'expected "## intent:NAME"'),
    ],
)
def test_wrong_files_say_where(tmp_path: Path, name: str, content: str | bytes, row: int | None, reason: str) -> None:
    found = problems(put(tmp_path / name, content))
    assert found[0][0] == row
    assert reason in found[0][1]


def test_a_stream_takes_training_data_and_no_other_markdown_or_yaml(tmp_path: Path) -> None:
    put(tmp_path / "1.yml", YAML)
    put(tmp_path / "2.md", MARKDOWN.replace("faq/ask_hours", "hours"))
    put(tmp_path / "README.md", "# About\n")
    put(tmp_path / "config.yml", "language: en\n")
    assert [task.name for task in read_stream(tmp_path)] == ["1", "2"]
