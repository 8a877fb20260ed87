"""Findings of the checks, and the table of their kinds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conpet.data.example import Example
from conpet.data.quality.rows import Row
from conpet.report.data_check import FindingKind, Severity

_KINDS: Iterable[tuple[Severity, str, str, str]] = (
    (Severity.ERROR, "invalid-row", "Rows that cannot be learned", "Correct them; the fix leaves them out."),
    (Severity.ERROR, "invalid-task", "Tasks that cannot be learned", "Correct the files; there is no automatic fix."),
    (
        Severity.ERROR,
        "unencodable",
        "Inputs the backbone cannot read",
        "Marked spans that are too long or have no tokens; raise backbone.max_tokens or leave them out.",
    ),
    (
        Severity.ERROR,
        "leak",
        "Held-out inputs among training rows",
        "Accuracy on them measures memory; the fix leaves out the training row.",
    ),
    (
        Severity.ERROR,
        "contradiction",
        "The same input with different labels",
        "Keep one label; the fix keeps the most frequent one, and no row if there is none.",
    ),
    (
        Severity.WARNING,
        "overlap",
        "Validation inputs among test rows",
        "Choices are then made on test inputs; the fix leaves out the validation row.",
    ),
    (
        Severity.WARNING,
        "near-leak",
        "Training rows nearly equal to held-out rows",
        "Accuracy on them is too high; the fix leaves out the training row.",
    ),
    (
        Severity.WARNING,
        "near-contradiction",
        "Nearly the same input with different labels",
        "Compare the two rows; one of the labels may be wrong.",
    ),
    (
        Severity.WARNING,
        "mislabelled",
        "Rows that are probably mislabelled",
        "Compare label and suggestion; only --drop-mislabelled leaves them out.",
    ),
    (
        Severity.WARNING,
        "label-forms",
        "Labels that are probably the same",
        "They differ only by blanks, case, width or punctuation; the fix uses the most frequent form within a task.",
    ),
    (
        Severity.WARNING,
        "close-labels",
        "Labels that are hard to tell apart",
        "Merge them, or add examples that show the difference.",
    ),
    (
        Severity.WARNING,
        "few-examples",
        "Labels with very few training examples",
        "Add examples.",
    ),
    (
        Severity.WARNING,
        "cut",
        "Inputs that will be cut",
        "Words beyond backbone.max_tokens are not read; raise it, or shorten the inputs.",
    ),
    (
        Severity.WARNING,
        "characters",
        "Invisible, control or broken characters",
        "The fix removes invisible and control characters; broken ones need the original text.",
    ),
    (
        Severity.WARNING,
        "personal-data",
        "Rows with personal data",
        "Remove it, or use a workspace that stores no text (replay.latent_only).",
    ),
    (
        Severity.NOTE,
        "duplicate",
        "Duplicate rows",
        "They weigh more in training and in accuracy; the fix leaves out all but the first.",
    ),
    (
        Severity.NOTE,
        "near-duplicate",
        "Rows that are nearly equal",
        "They add little; there is no automatic fix.",
    ),
    (Severity.NOTE, "unicode", "Characters in an unusual Unicode form", "The fix composes them (NFC), no more."),
    (Severity.NOTE, "blanks", "Needless blanks", "The fix removes them."),
    (
        Severity.NOTE,
        "language",
        "Rows in another language or script",
        "Check that the backbone knows it, and that the row belongs here.",
    ),
    (Severity.NOTE, "numeric-labels", "Labels named by numbers only", "Names make reports readable."),
    (Severity.NOTE, "imbalance", "Labels with many more examples than others", "Add examples of the rare labels."),
    (
        Severity.NOTE,
        "no-held-out",
        "Labels with few or no held-out examples",
        "Accuracy does not cover them, or only roughly.",
    ),
    (Severity.NOTE, "empty-file", "Files without rows", "Without test rows, no accuracy is measured."),
    (
        Severity.NOTE,
        "known-labels",
        "Files with labels that the workspace knows",
        "`conpet learn --extend` adds the examples to their tasks; `--mixed` also learns new labels.",
    ),
    (Severity.NOTE, "reading", "Notes of the readers", "What was changed or ignored while reading."),
)
KINDS = {
    code: FindingKind(code=code, title=title, severity=severity, meaning=meaning)
    for severity, code, title, meaning in _KINDS
}
"""The kinds of findings by code, errors first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a finder found.

    Attributes:
        code: A key of `KINDS`.
        message: What was found. Must not contain text of the input.
        row: The row, or None for a whole file or task.
        file: The file of a finding without a row.
        number: The number of a row that cannot be read.
        other: The other row of a pair.
        leaves_out: Whether the fix leaves the row out.
        becomes: The example the fix replaces it with.
        fix: What the fix does, in words; by default it follows from the two above.
    """

    code: str
    message: str
    row: Row | None = None
    file: str = ""
    number: int | None = None
    other: Row | None = None
    leaves_out: bool = False
    becomes: Example | None = None
    fix: str | None = None

    @property
    def severity(self) -> Severity:
        """The severity of its kind."""
        return KINDS[self.code].severity

    @property
    def place(self) -> tuple[str, int | None]:
        """File and row number."""
        return (self.row.file, self.row.number) if self.row else (self.file, self.number)

    @property
    def outcome(self) -> str | None:
        """What the fix does, in words, or None."""
        return self.fix or ("left out" if self.leaves_out else None)
