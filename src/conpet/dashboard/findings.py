"""What a check of data finds, in words for people who use pages; see `conpet.data.quality.finding`."""

from __future__ import annotations

from typing import NamedTuple

from conpet.dashboard.messages import marked


class Words(NamedTuple):
    """What a kind of finding is called, and what to do about it."""

    title: str
    advice: str


FINDINGS = {
    "invalid-row": Words(marked("Rows that cannot be learned"), marked("Correct them in the file, or leave them out.")),
    "invalid-task": Words(marked("The task cannot be learned"), marked("Correct the file and upload it again.")),
    "unencodable": Words(
        marked("Inputs that the language model cannot read"),
        marked("The marked words lie too far back, or are empty. Shorten the text, or leave the row out."),
    ),
    "leak": Words(
        marked("Test inputs among the training rows"),
        marked("Accuracy on them would be too high. Leave out the training row."),
    ),
    "contradiction": Words(
        marked("The same input with different labels"),
        marked("Only one label can be right. Leave out the wrong row."),
    ),
    "overlap": Words(
        marked("Validation inputs among the test rows"),
        marked("Choices would be made on test inputs. Leave out the validation row."),
    ),
    "near-leak": Words(
        marked("Training rows that are nearly equal to test rows"),
        marked("Accuracy on them would be too high. Leave out the training row."),
    ),
    "near-contradiction": Words(
        marked("Nearly the same input with different labels"),
        marked("Compare the two rows: one of the labels may be wrong."),
    ),
    "mislabelled": Words(
        marked("Rows that probably have the wrong label"),
        marked("Compare the label with the suggestion, and leave the row out if it is wrong."),
    ),
    "label-forms": Words(
        marked("Labels that are probably the same"),
        marked("They differ only by blanks, case, width or punctuation. The correction uses the most frequent form."),
    ),
    "close-labels": Words(
        marked("Labels that are hard to tell apart"),
        marked("Join them, or add examples that show the difference."),
    ),
    "few-examples": Words(marked("Labels with very few training examples"), marked("Add examples.")),
    "cut": Words(
        marked("Long inputs whose end will not be read"),
        marked("Shorten them if the end matters."),
    ),
    "characters": Words(
        marked("Invisible or broken characters"),
        marked("The correction removes invisible ones. Broken ones need the original text."),
    ),
    "personal-data": Words(
        marked("Rows with personal data"),
        marked("Remove names, numbers and addresses from the text, or leave the row out."),
    ),
    "duplicate": Words(
        marked("Duplicate rows"), marked("They weigh more than others. All but the first can be left out.")
    ),
    "near-duplicate": Words(marked("Rows that are nearly equal"), marked("They add little.")),
    "unicode": Words(marked("Characters in an unusual form"), marked("The correction uses the usual form.")),
    "blanks": Words(marked("Needless blanks"), marked("The correction removes them.")),
    "language": Words(
        marked("Rows in another language or script"),
        marked("Check that the row belongs here, and that the language model knows the language."),
    ),
    "numeric-labels": Words(marked("Labels that are only numbers"), marked("Names are easier to read.")),
    "imbalance": Words(
        marked("Labels with many more examples than others"), marked("Add examples of the rare labels.")
    ),
    "no-held-out": Words(
        marked("Labels with few or no test examples"), marked("Their accuracy will not be known, or only roughly.")
    ),
    "empty-file": Words(marked("Files without rows"), marked("Without test rows, no accuracy is measured.")),
    "known-labels": Words(
        marked("Labels that are already known"),
        marked("To add examples to known labels, choose “More examples of known labels” when you upload the file."),
    ),
    "reading": Words(marked("Notes on reading the file"), marked("What was changed or ignored while reading.")),
}
"""Words by code of a kind of finding."""
