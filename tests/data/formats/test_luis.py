"""LUIS files."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.reading import SAMPLES, labelled, notes, problems, put, row_numbers

LU = """> !# @app.name = booking
[common](./common.lu)

# Book Flight
> a comment
- fly to {@city=Paris}
- from {@leg={@from=Cairo} to {to = Rome}} please
* book {city:destination=Oslo}
+ {when=now}
-no blank
- a brace \\{ or two \\}
- [other](./other.lu#Book)
- fly to {@city}
- (fly|go) now
- ^take me [home]^

## Cancel
- never mind
@ ml city hasRoles from, to
@ list kind =
\t- first :
\t\t- business
$color : simple

# ? What do you sell?
- what is for sale
```markdown
# Cancel
- nothing
```
### Stop
- halt
"""
FOUND = [
    ("fly to Paris", "Book Flight"),
    ("from Cairo to Rome please", "Book Flight"),
    ("book Oslo", "Book Flight"),
    ("now", "Book Flight"),
    ("no blank", "Book Flight"),
    ("a brace { or two }", "Book Flight"),
    ("never mind", "Cancel"),
    ("halt", "Stop"),
]


def test_utterances_of_intents(tmp_path: Path) -> None:
    path = put(tmp_path / "t.lu", LU.replace("\n", "\r\n"), "utf-8-sig")
    assert labelled(path) == FOUND
    assert row_numbers(path) == [6, 7, 8, 9, 10, 11, 18, 32]
    assert notes(path) == [
        "only intents are read; left out: 1 answered question, 3 entity definitions, 2 included files, 3 patterns"
    ]


def test_a_real_file() -> None:
    path = SAMPLES / "email.lu"
    assert ("add a flag to the last email", "AddFlag") in labelled(path)
    assert notes(path) == ["only intents are read; left out: 3 entity definitions, 1 pattern"]


def test_a_file_without_intents_says_what_is_expected(tmp_path: Path) -> None:
    assert problems(put(tmp_path / "t.lu", "hello\n")) == [
        (None, 'contains no intents; expected "# Intent" and "- utterance" lines')
    ]
