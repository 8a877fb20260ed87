"""Uploads of tasks: read and checked in a process of their own, with limits, before a job is accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conpet.data.quality.rows import Mode
from conpet.errors import ConfigError, DataError, Problem
from conpet.jobs.records import FILE_FORMATS

MEDIA_TYPES = {
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
"""Formats of uploads by media type."""
FORMATS = ("json", *FILE_FORMATS)
"""Formats of uploads."""
RAW = "upload"
"""Name of the file as it was received, before its suffix, in the folder of the job."""
REPORT, ROWS = "report.json", "rows.json"
"""What an examination writes: a `DataCheckReport`; and the rows as they are, and as they would be corrected."""
_SECONDS = 120
"""Most seconds for reading an upload."""
_SHOWN_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How an upload is read; most are those of `conpet.data.read_task`.

    Attributes:
        form: One of `FORMATS`.
        extend: Whether it holds further examples of known labels instead of tasks.
        name: Name of the task; not for JSON, which names its tasks itself.
        template: Its template; not for JSON.
        seed: Seed for splitting off missing test sets.
        all_rows: Whether nothing is split off.
        owned: Maps known labels to the names of their tasks.
        limit: Most bytes when decompressed.
        encoding: Encoding of its text; None for Unicode.
    """

    form: str
    extend: bool = False
    name: str | None = None
    template: str | None = None
    seed: int = 0
    all_rows: bool = False
    owned: Mapping[str, str] = field(default_factory=dict)
    limit: int = 64 << 20
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class ExamineOptions:
    """How a file is examined.

    Attributes:
        file: Its name in the folder; the ending says the format.
        shown: What it is called in messages.
        workspace: Folder of the workspace.
        name: Name of the task that new labels become.
        backbone: Present location of the backbone, if it was moved.
        limit: Most bytes of the file when decompressed.
        columns: The columns of fields that have other names.
        encoding: Encoding of its text; None for Unicode.
        sheet: Sheet of a workbook; None for the likeliest.
    """

    file: str
    shown: str
    workspace: str
    name: str
    backbone: str | None = None
    limit: int = 64 << 20
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    sheet: str | int | None = None


@dataclass(frozen=True, slots=True)
class CheckedUpload:
    """What an upload holds.

    Attributes:
        tasks: Names of its tasks.
        labels: Labels of its examples, if they are for known labels.
    """

    tasks: tuple[str, ...]
    labels: tuple[str, ...]


def check_upload(folder: Path, options: UploadOptions) -> CheckedUpload:
    """Read the upload in a job's folder, write its checked data beside it, and return what it holds.

    It is read in another process with limits on memory and time: a hostile file may exhaust both, and a large one would
    keep this process from answering.

    Args:
        folder: The job's folder; it holds the file `upload.FORMAT`, which is deleted.
        options: How to read it.

    Raises:
        DataError: The upload has errors; `problems` lists all of them.
        ConfigError: An option is wrong, or pyarrow is needed and not installed.
    """
    answer = _asked("conpet.jobs.intake", {"folder": str(folder), **asdict(options)})
    return CheckedUpload(tuple(answer["tasks"]), tuple(answer["labels"]))


def examine_upload(folder: Path, options: ExamineOptions) -> Mode:
    """Look for what makes learning wrong in a file in a job's folder, against a workspace; the file stays.

    What is found is written beside the file, as the report `REPORT`, and the rows, as `ROWS`. It is read in another
    process, as by `check_upload`.

    Args:
        folder: The job's folder.
        options: What to look at, and how.

    Returns:
        How its labels can be learned: `NEW` as a task, `EXTEND` if all belong to other tasks, `MIXED` if some do.

    Raises:
        DataError: The file cannot be read.
        ConfigError: An option is wrong, or a package is missing that reads its format.
    """
    return Mode(_asked("conpet.jobs.examine", {"folder": str(folder), **asdict(options)})["mode"])


def _asked(module: str, request: Mapping[str, Any]) -> Any:
    """Return what a process answers that reads uploads."""
    command = [sys.executable, "-m", module]
    # Arrow's own allocator reserves a gigabyte at once, which may be all that the process is allowed.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"the upload could not be read within {_SECONDS} seconds; send it in smaller parts") from None
    if done.returncode > 0:
        raise RuntimeError(f"reading an upload failed: {done.stderr[-_SHOWN_CHARACTERS:]}")
    answer = json.loads(done.stdout) if done.returncode == 0 else {"outcome": "memory"}  # killed, or a parser crashed
    match answer["outcome"]:
        case "memory":
            raise DataError("the upload could not be read within the memory allowed; send it in smaller parts")
        case "data":
            raise DataError(answer["message"], [Problem(*problem) for problem in answer["problems"]])
        case "settings":
            raise ConfigError(answer["message"])
    return answer
