"""The result of a check of data as plain values: what was found, where, and what the fix does about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from conpet.errors import plural


class Severity(StrEnum):
    """What a finding means for learning."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class FindingKind(BaseModel):
    """A kind of finding.

    Attributes:
        code: Its name in JSON and on the command line.
        title: Its name for readers.
        severity: `error` if `learn` refuses the data because of it, `warning` if it probably costs accuracy or
            falsifies it, `note` for anything else worth knowing.
        meaning: What it means and what to do, in one sentence.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    title: str
    severity: Severity
    meaning: str


class Place(BaseModel):
    """A row of a finding.

    Attributes:
        file: Path of the file as the user named it, or the task of a workspace.
        row: Row number counted from 1; None for a whole file or task.
        subset: `train`, `validation` or `test`; None for a whole file or task.
        text: The input, shortened, with personal data masked; None if there is none.
        label: Its label.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    row: int | None = None
    subset: str | None = None
    text: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}: row {self.row}"


class FoundRow(BaseModel):
    """One finding.

    Attributes:
        code: The code of its kind.
        message: What was found. Contains no text of the input.
        place: Where.
        other: The other row, if the finding is about a pair.
        fix: What the fix does, or None if it leaves the row as it is.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    place: Place
    other: Place | None = None
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class LeftOutRow(BaseModel):
    """A row that a fix leaves out or changes; no text of the input.

    Attributes:
        file: Path of the file.
        row: Row number counted from 1.
        action: `left out` or `changed`.
        code: The code of the finding.
        reason: Why.
        label: The label, after the fix if the row is changed; None if there is none or the row cannot be read.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    row: int
    action: str
    code: str
    reason: str
    label: str | None = None


class DataCheckReport(BaseModel):
    """The result of `check_data`; `str(report)` is a one-line summary.

    Attributes:
        source: What was checked.
        workspace: The workspace it was checked against, or None.
        backbone: The backbone of the checks that need one, or None if they were skipped.
        rows: Number of readable rows by task and subset.
        labels: Number of labels.
        kinds: The kinds of the findings, errors first.
        findings: The findings, in the order of `kinds`.
        left_out: The rows that a fix leaves out or changes.
        remaining: Errors that a fix cannot mend.
        skipped: Checks that were not made, and why.
        learn_options: The options that `conpet learn` needs because the workspace knows labels of the data, or None.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    workspace: str | None = None
    backbone: str | None = None
    rows: dict[str, dict[str, int]]
    labels: int
    kinds: tuple[FindingKind, ...]
    findings: tuple[FoundRow, ...]
    left_out: tuple[LeftOutRow, ...] = ()
    remaining: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    learn_options: str | None = None

    @property
    def counts(self) -> Counter[str]:
        """Number of findings by code."""
        return Counter(finding.code for finding in self.findings)

    def of(self, code: str) -> list[FoundRow]:
        """Return the findings with a code."""
        return [finding for finding in self.findings if finding.code == code]

    @property
    def severities(self) -> Mapping[Severity, int]:
        """Number of findings by severity."""
        counts = self.counts
        return {
            severity: sum(counts[kind.code] for kind in self.kinds if kind.severity is severity)
            for severity in Severity
        }

    @property
    def refused(self) -> bool:
        """Whether `learn` would refuse the data as it is."""
        return self.severities[Severity.ERROR] > 0

    @property
    def examples(self) -> int:
        """Number of readable rows."""
        return sum(sum(counts.values()) for counts in self.rows.values())

    def __str__(self) -> str:
        found = [plural(count, severity) for severity, count in self.severities.items() if count]
        size = f"{plural(self.examples, 'row')}, {plural(len(self.rows), 'task')}, {plural(self.labels, 'label')}"
        return f"{self.source}: {size}: {', '.join(found) or 'nothing found'}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        counts = self.counts
        summary = {str(severity): count for severity, count in self.severities.items()}
        document = self.model_dump(mode="json")
        for kind in document["kinds"]:
            kind["count"] = counts[kind["code"]]
        return {"refused": self.refused, "summary": summary, **document}
