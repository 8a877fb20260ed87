"""Run all finders on data, and decide what a fix leaves out and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from conpet.backbone.encode import Encoder
from conpet.data.example import Example, Kind
from conpet.data.quality.characters import cleaned, find_characters
from conpet.data.quality.copies import find_copies
from conpet.data.quality.finding import KINDS, Finding
from conpet.data.quality.labels import find_empty_files, find_label_counts, find_label_forms, find_label_names
from conpet.data.quality.language import find_other_languages
from conpet.data.quality.lengths import cut_summary, find_lengths, needs_of
from conpet.data.quality.mislabelled import (
    LEAST_JUDGED,
    find_close_labels,
    find_mislabelled,
    out_of_fold,
    unjudged,
)
from conpet.data.quality.near import find_near_copies
from conpet.data.quality.personal import find_personal_data, masked
from conpet.data.quality.rows import TRAIN, Data, Mode, Row, TaskRows, by_label
from conpet.data.quality.structure import find_notes, find_unusable, learn_option
from conpet.data.templates import check_template
from conpet.data.truncation import Need
from conpet.errors import Problem, plural
from conpet.report.data_check import DataCheckReport, FoundRow, LeftOutRow, Place, Severity

_SHOWN_CHARACTERS = 300
_LEFT_OUT, _CHANGED = "left out", "changed"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the backbone reads inputs.

    Attributes:
        backbone: Its name.
        encoder: Turns examples into tokens.
        max_tokens: Longest input, in tokens.
        longest: Longest input that the backbone can read, or None if it has no limit.
        features: Computes the frozen features `[n, F]` of n examples with a template; None to skip the finders that
            need a pass through the backbone.
        stored: Training rows of the workspace with their features, by kind.
    """

    backbone: str
    encoder: Encoder
    max_tokens: int
    longest: int | None = None
    features: Callable[[Sequence[Example], str | None], Tensor] | None = None
    stored: Callable[[Kind], tuple[Sequence[Row], Tensor | None]] | None = None


@dataclass
class Examination:
    """What was found in data, and what a fix makes of them.

    Attributes:
        data: The data as they were read.
        fixed: The data after the fix.
        findings: All findings.
        changes: For each row that the fix changes, the new row, or None if it is left out, and the finding.
        unread: Findings of rows that could not be read.
        details: More about a kind of finding, by code.
        notes: What a user should know about each task that will be learned, by task.
        skipped: Checks that were not made, and why.
    """

    data: Data
    fixed: Data
    findings: list[Finding] = field(default_factory=list)
    changes: dict[Row, tuple[Row | None, Finding]] = field(default_factory=dict)
    unread: list[Finding] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings because of which the data cannot be learned."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]

    @property
    def remaining(self) -> list[Finding]:
        """The errors that the fix does not mend."""
        tasks = (
            replace(task, problems=_of_files(task.problems))
            for task, read in zip(self.fixed.tasks, self.data.tasks, strict=True)
            if task.mode is Mode.NEW or any(task.rows) or not any(read.rows)  # nothing to add is no error
        )
        usable = replace(self.fixed, tasks=tuple(tasks))
        found = [*find_unusable(usable), *find_copies(usable)]
        return [finding for finding in found if finding.severity is Severity.ERROR]

    @property
    def outcomes(self) -> list[tuple[LeftOutRow, Row | None, Row | None]]:
        """The rows that the fix leaves out or changes, as they were read and after it, by file and row.

        A row that could not be read is None, and so is one that is left out.
        """
        found: list[tuple[LeftOutRow, Row | None, Row | None]] = [
            (_outcome(finding, row, new), row, new) for row, (new, finding) in self.changes.items()
        ]
        found += [(_outcome(finding, None, None), None, None) for finding in self.unread]
        files = {file: number for number, file in enumerate(dict.fromkeys(one.file for one, _, _ in found))}
        return sorted(found, key=lambda outcome: (files[outcome[0].file], outcome[0].row))

    @property
    def left_out(self) -> list[LeftOutRow]:
        """The rows that the fix leaves out or changes, by file and row."""
        return [one for one, _, _ in self.outcomes]

    def report(self, workspace: str | None, backbone: str | None) -> DataCheckReport:
        """Return the report."""
        order = {code: number for number, code in enumerate(KINDS)}
        findings = sorted(self.findings, key=lambda finding: order[finding.code])
        codes = {finding.code for finding in findings}
        kinds = [
            kind.model_copy(update={"meaning": " ".join([kind.meaning, *self.details.get(code, "").splitlines()])})
            for code, kind in KINDS.items()
            if code in codes
        ]
        return DataCheckReport(
            source=self.data.source,
            workspace=workspace,
            backbone=backbone,
            rows={task.name: {subset: len(rows) for subset, rows in task.subsets.items()} for task in self.data.tasks},
            labels=len({row.label for row in self.data.rows if row.label}),
            kinds=tuple(kinds),
            findings=tuple(_found(finding) for finding in findings),
            left_out=tuple(self.left_out),
            remaining=tuple(f"{_place(finding)}: {finding.message}" for finding in self.remaining),
            skipped=tuple(self.skipped),
            learn_options=self._learn_options,
        )

    @property
    def _learn_options(self) -> str | None:
        """The options of `conpet learn` for all tasks: --mixed includes --extend."""
        options = {learn_option(task) for task in self.data.tasks}
        if len(options) < 2:
            return next(iter(options), None)
        return max((option for option in options if option not in (None, "--extend")), key=str, default="--mixed")


def examine(
    data: Data, reading: Reading | None = None, *, thorough: bool = True, drop_mislabelled: bool = False
) -> Examination:
    """Run the finders, and decide what a fix leaves out and changes.

    Args:
        data: The data.
        reading: How the backbone reads them; None to skip the finders that need it.
        thorough: Whether to run the finders that `learn` does not need: near copies, languages, personal data and
            what the backbone tells about labels.
        drop_mislabelled: Whether the fix leaves out rows that are probably mislabelled.
    """
    done = Examination(data, data)
    normal = _normalise(done, thorough)
    _refuse(done, normal, reading)
    usable = done.fixed
    done.findings += [*find_notes(data), *find_empty_files(data)]
    if thorough:
        _leave_out(done, find_near_copies(done.fixed))
        new = replace(usable, tasks=usable.new_tasks)
        done.findings += [*find_label_names(new), *find_label_counts(new)]
        done.findings += [*find_other_languages(usable.rows), *find_personal_data(usable.rows)]
        if reading is not None and reading.features is not None:
            _doubt_labels(done, reading, drop_mislabelled)
    _leave_out_orphans(done)
    return done


def _normalise(done: Examination, thorough: bool) -> Data:
    """Find what the fix changes in texts and labels; return the changed data."""
    data = done.data
    for finding in find_characters(data.rows):
        if thorough or finding.code == "characters":
            done.findings.append(finding)
        if finding.row is not None and finding.becomes is not None:
            done.changes.setdefault(finding.row, (finding.row.with_example(finding.becomes), finding))
    for finding in find_label_forms(data):
        done.findings.append(finding)
        if finding.row is not None and finding.becomes is not None:
            example = cleaned(finding.row.example).labelled(finding.becomes.label)
            done.changes[finding.row] = (finding.row.with_example(example), finding)
    return _apply(done)


def _refuse(done: Examination, normal: Data, reading: Reading | None) -> None:
    """Find what cannot be learned, in the data as they are and as the fix changes them.

    A row that is wrong only as it is (a label in another form, for example) is mended by the change.
    """
    before = [*find_unusable(done.data)]
    broken = _rows_of(before)
    before += find_copies(_without(done.data, broken))
    after = [*find_unusable(normal)]
    invalid = _rows_of(after)
    after += find_copies(_without(normal, invalid))
    if reading is not None:
        after += _lengths(done, _without(normal, invalid), reading)
    mended = {(one.code, one.place) for one in before} - {(one.code, one.place) for one in after}
    known = {(one.code, one.place) for one in before}
    done.findings += [
        replace(one, leaves_out=False, fix="mended by other changes") if (one.code, one.place) in mended else one
        for one in before
    ]
    done.findings += [one for one in after if (one.code, one.place) not in known]
    for finding in after:
        if finding.leaves_out and finding.number is not None and finding.row is None:
            done.unread.append(finding)
        elif finding.leaves_out and finding.row is not None:
            row = finding.row.as_read
            if done.changes.get(row, (row, finding))[0] is not None:
                done.changes[row] = (None, finding)
    _apply(done)


def _lengths(done: Examination, data: Data, reading: Reading) -> list[Finding]:
    sound = [task for task in data.tasks if task.kind and not _wrong_template(task)]
    needs: dict[Row, Need] = {}
    for task in sound:
        of_task = dict(needs_of(task, reading.encoder))
        needs |= of_task
        if summary := cut_summary(of_task.values(), reading.max_tokens, reading.longest):
            done.notes.setdefault(task.name, []).append(summary)
    if summary := cut_summary(needs.values(), reading.max_tokens, reading.longest):
        done.details["cut"] = f"{summary}."
    return list(find_lengths(needs, reading.max_tokens))


def _wrong_template(task: TaskRows) -> bool:
    return task.template is not None and task.kind is not None and check_template(task.template, task.kind) is not None


def _leave_out(done: Examination, findings: Iterable[Finding]) -> None:
    """Add findings on rows of the fixed data, and leave out those rows that they name."""
    found = list(findings)
    done.findings += found
    _leave_out_quietly(done, found)


def _doubt_labels(done: Examination, reading: Reading, drop: bool) -> None:
    """Run the finders on what the backbone tells about labels, for each kind of input."""
    import torch

    assert reading.features is not None  # noqa: S101 - the caller has checked
    found: list[Finding] = []
    for kind in Kind:
        rows: list[Row] = []
        parts: list[Tensor] = []
        for task in (task for task in done.fixed.tasks if not _wrong_template(task)):
            of_kind = [row for row in task.subsets.get(TRAIN, ()) if row.example.kind is kind]
            if of_kind and task.labelled:
                rows += of_kind
                parts.append(reading.features([row.example for row in of_kind], task.template))
        if not rows:
            continue
        if reading.stored is not None:
            stored, features = reading.stored(kind)
            rows += stored
            parts += [] if features is None else [features]
        guess = out_of_fold(rows, torch.cat(parts))
        if guess is None:
            continue
        owners = {label: of_label[0].task for label, of_label in by_label(rows).items()}
        found += [replace(one, leaves_out=drop) for one in find_mislabelled(guess)]
        if few := unjudged(guess):
            labels = plural(len(few), "label")
            done.skipped.append(
                f"whether rows are mislabelled: {labels} with fewer than {LEAST_JUDGED} training rows, too few to judge"
            )
        done.findings += find_close_labels(guess, owners)
    _leave_out(done, found)


def _leave_out_orphans(done: Examination) -> None:
    """Leave out held-out rows whose label has lost all its training rows."""
    lost = []
    for task in done.fixed.tasks if done.changes else ():
        known = {row.label for row in task.subsets.get(TRAIN, ())} | task.owners.keys()
        lost += [
            Finding("invalid-row", f"label {row.label!r} has no training example left", row, leaves_out=True)
            for subset, rows in task.subsets.items()
            for row in rows
            if subset != TRAIN and task.labelled and row.label not in known
        ]
    _leave_out_quietly(done, lost)


def _leave_out_quietly(done: Examination, findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.row is not None and finding.leaves_out:
            done.changes[finding.row.as_read] = (None, finding)
    _apply(done)


def _outcome(finding: Finding, row: Row | None, new: Row | None) -> LeftOutRow:
    file, number = (row.file, row.number) if row is not None else finding.place
    return LeftOutRow(
        file=file,
        row=number or 0,
        action=_LEFT_OUT if new is None else _CHANGED,
        code=finding.code,
        reason=finding.message if new is None else (finding.fix or finding.message),
        label=((new or row).label or None) if row is not None else None,
    )


def _apply(done: Examination) -> Data:
    done.fixed = done.data.with_rows({row: new for row, (new, _) in done.changes.items()})
    return done.fixed


def _rows_of(findings: Iterable[Finding]) -> set[Row]:
    return {finding.row for finding in findings if finding.row is not None and finding.leaves_out}


def _without(data: Data, rows: set[Row]) -> Data:
    return data.with_rows(dict.fromkeys(rows)) if rows else data


def _of_files(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems of whole files; rows that cannot be read are left out."""
    return tuple(problem for problem in problems if problem.concerns_file)


def _found(finding: Finding) -> FoundRow:
    place = _row_place(finding.row) if finding.row else Place(file=finding.file, row=finding.number)
    other = _row_place(finding.other) if finding.other else None
    return FoundRow(code=finding.code, message=finding.message, place=place, other=other, fix=finding.outcome)


def _row_place(row: Row) -> Place:
    text = masked(row.example.content)
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
    return Place(
        file=f"task {row.task!r} of the workspace" if row.stored else row.file,
        row=row.number,
        subset=row.subset,
        text=shown,
        label=row.example.label,
    )


def _place(finding: Finding) -> str:
    file, number = finding.place
    return file if number is None else f"{file}: row {number}"
