"""Every command at a workspace that may be read but not written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.cli import Result, conpet, taught, write_rows
from tests.helpers.permissions import public_folder, reading_only


@pytest.fixture(scope="module")
def workspace() -> Iterator[Path]:
    with public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONPET_HOME", str(folder / "home"))
        yield taught(folder)


def reading(workspace: Path, out: Path) -> list[tuple[object, ...]]:
    """Return commands that read a workspace; `out` is a folder for their files."""
    return [
        ("predict", workspace, "some text"),
        ("evaluate", workspace, "--json"),
        ("report", workspace, "-o", out / "report"),
        ("report", workspace, "--json", "--evaluate"),
        ("modules", "list", workspace),
        ("modules", "show", workspace, "text-1"),
        ("modules", "verify", workspace),
        ("modules", "export", workspace, "text-1", out / "module"),
        ("labels", "list", workspace),
        ("costs", "show", workspace),
        ("generations", workspace),
        ("candidates", workspace),
    ]


def words(result: Result) -> list[str]:
    """Return what a command printed, without times and the names of folders."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|owner|reader", "", result.out).split()


def test_commands_that_read_print_what_they_print_for_the_owner(workspace: Path) -> None:
    with public_folder() as out:
        out.chmod(0o777)
        for folder in ("owner", "reader"):
            (out / folder).mkdir()
            (out / folder).chmod(0o777)
        expected = [conpet(*command) for command in reading(workspace, out / "owner")]
        before = sorted(workspace.rglob("*"))
        with reading_only(workspace.parent):
            results = [conpet(*command) for command in reading(workspace, out / "reader")]
        assert sorted(workspace.rglob("*")) == before
        assert [result.err for result in results if result.code] == []
        assert list(map(words, results)) == list(map(words, expected))
        assert sorted(path.name for path in (out / "reader" / "module").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("learn", "WORKSPACE", "DATA"),
        ("modules", "remove", "WORKSPACE", "text-1", "--yes"),
        ("labels", "rename", "WORKSPACE", "text-0-0", "other"),
        ("consolidate", "WORKSPACE"),
    ],
)
def test_a_change_says_why_it_is_refused(workspace: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    data = write_rows(tmp_path / "task.jsonl", [{"text": f"word {row}", "label": "ab"[row % 2]} for row in range(20)])
    places = {"WORKSPACE": workspace, "DATA": data}
    assert conpet("modules", "list", workspace).code == 0
    with reading_only(workspace.parent):
        refused = conpet(*(places.get(part, part) for part in command))
    assert refused.code == 1
    assert f"error: {workspace} can be read but not changed: {workspace} is not writable for user" in refused.err
    assert refused.out == ""
