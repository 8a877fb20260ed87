"""What every command's help looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from conpet.cli import main
from conpet.cli.app import app


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield names
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*names, name))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the terminal so wide that only line breaks of the texts are left."""
    monkeypatch.setenv("COLUMNS", "600")


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("names", commands(typer.main.get_command(app)), ids=" ".join)
def test_help_breaks_lines_between_sentences_and_names_values(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*names, "--help"]) == 0
    said = capsys.readouterr().out
    usage, *lines = (line.strip(" │") for line in said.splitlines() if line.strip(" │"))
    assert usage.startswith(" ".join(["Usage: conpet", *names]))
    assert "{" not in usage
    text = lines[: next(number for number, line in enumerate(lines) if line.startswith("╭"))]
    assert [line for line in text if line[-1] not in ".:"] == []
    assert re.findall(r"<[a-z]\S*>|<\w+ range>|\[?x>=|<=x", said) == []
    assert not re.search(r"--help +-h +\S+ +Show", said)


@pytest.mark.usefixtures("wide")
def test_an_option_has_a_placeholder_and_says_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--top N Number of labels with scores for each input. At least 1. [default: 3]" in said
    assert (
        "--min-score NUMBER Leave the label empty if its score is lower, and write it as `rejected`. From 0 to 1."
        in said
    )
    assert "--json Print JSON." in said
    assert "conpet predict [OPTIONS] [WORKSPACE] [TEXT]..." in said
    main(["report", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "WORKSPACE Folder of the workspace. [required]" in said
    assert "conpet report [OPTIONS] WORKSPACE" in said
