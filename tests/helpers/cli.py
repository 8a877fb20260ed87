"""Runs the command line in this process, on workspaces made once and copied."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from conpet.cli import main
from conpet.testing import toy_stream

_KEPT = TemporaryDirectory(prefix="conpet-cli-")
STREAM = toy_stream(2, 2, 8, 2, 4)
QUICK = (
    "--backbone",
    "tiny-random",
    "--epochs",
    "2",
    "--set",
    "fusion.calibration_examples=8",
)


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def conpet(*arguments: object) -> Result:
    """Run a verb; what it prints goes to no terminal."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_stream(folder: Path) -> Path:
    """Write `STREAM` as a stream folder."""
    for task in STREAM:
        for subset in ("train", "validation", "test"):
            rows = [{"text": one.text, "label": one.label} for one in getattr(task, subset)]
            write_rows(folder / task.name / f"{subset}.jsonl", rows)
    return folder


def taught(folder: Path) -> Path:
    """Return a workspace of one's own in which `STREAM` was learned by the command line."""
    return Path(shutil.copytree(_taught(), folder / "ws"))


@cache
def _taught() -> Path:
    made = Path(_KEPT.name) / "ws"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONPET_HOME", str(Path(_KEPT.name) / "home"))  # whose cache no other test has filled
        assert conpet("init", made, *QUICK).code == 0
        assert conpet("learn", made, write_stream(Path(_KEPT.name) / "stream")).code == 0
    return made
