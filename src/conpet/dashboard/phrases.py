"""Messages of the library in the languages of the pages: of the check of data, of bad input, of jobs.

The library says them in English, as commands and the API show them. Here, each is a phrase with places for values.
Pages in another language find the phrase that a message was made from, and show its translation. English pages show
messages as they are, unless a phrase has other words for pages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from conpet.dashboard.messages import Language, marked
from conpet.problem_details import of_a_request

_PLACE = re.compile(r"%\((?P<name>\w+)\)s")
_OPTIONAL = re.compile(r"\\\[(\w+)\\\]")
_FORMS = {
    "n": r"[\d,.]+%?",  # a number
    "q": r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"",  # a name in quotes
    "p": r".+?",  # another phrase, or what is not one
    "e": r".+?",  # several phrases
    "x": r".+?",  # as it is
}
"""What a place takes, by the last letter of its name, after `_`."""

_HINT = re.compile(r"[;,] [^;,]*--input-format[^;]*")
"""Advice on an option that pages don't have."""
_AND = " and "
_COMMA = marked(", ")


class _Phrase(NamedTuple):
    pattern: re.Pattern[str]
    shown: str
    same: bool


# `[s]` may be missing.
_SAME: Sequence[str] = (
    # places and kinds, which occur in other phrases
    marked("stored %(subset_p)s example %(number_n)s of task %(task_q)s"),
    marked("row %(number_n)s of task %(task_q)s"),
    marked("row %(number_n)s"),
    marked("row %(number_n)s of %(file_x)s"),
    marked("train"),
    marked("training"),
    marked("validation"),
    marked("test"),
    marked("text"),
    marked("label"),
    marked("relation"),
    marked("entity"),
    # the check of data: copies
    marked("the same input is stored already: %(place_p)s"),
    marked("trains on a held-out input: %(place_p)s"),
    marked("the same input was trained on: %(place_p)s"),
    marked("label %(label_q)s contradicts %(place_p)s, which has the same input"),
    marked("label %(label_q)s contradicts %(place_p)s: the same input has %(other_q)s"),
    marked("the same row is %(place_p)s: a label, and so a row, belongs to one task"),
    marked("the same input is a training example (%(place_p)s), the last of its label"),
    marked("the same input is also a training example (%(place_p)s)"),
    marked("the same input is a %(subset_p)s example of task %(task_q)s (%(place_p)s)"),
    marked("the same input is a %(subset_p)s example (%(place_p)s)"),
    marked("is a copy of %(place_p)s"),
    marked("is nearly equal to a %(subset_p)s example (%(place_p)s): %(how_p)s"),
    marked("label %(label_q)s, but %(place_p)s is nearly equal and has %(other_q)s: %(how_p)s"),
    marked("is nearly equal to %(place_p)s: %(how_p)s"),
    marked("%(share_n)s of the character sequences are the same"),
    marked("the same apart from case, punctuation and blanks"),
    # labels
    marked("label %(label_q)s is probably %(other_q)s (probabilities %(own_n)s and %(best_n)s)"),
    marked("label %(label_q)s is probably %(other_q)s of task %(task_q)s"),
    marked("label %(label_q)s is probably %(other_q)s"),
    marked("%(taken_n)s of %(all_n)s training row[s] of %(label_q)s are taken for %(other_q)s of task %(task_q)s"),
    marked("%(taken_n)s of %(all_n)s training row[s] of %(label_q)s are taken for %(other_q)s"),
    marked("%(count_n)s label[s] with fewer than %(least_n)s training examples: %(labels_x)s"),
    marked("%(count_n)s label[s] with fewer than %(least_n)s test examples: %(labels_x)s"),
    marked("%(count_n)s label[s] without test examples: %(labels_x)s"),
    marked("%(count_n)s label[s]: %(labels_x)s"),
    marked(
        "%(most_q)s has %(count_n)s training examples, the median label %(median_n)s, and %(rare_n)s label[s] at most "
        "a %(share_n)sth of the most frequent: %(labels_x)s"
    ),
    marked("label %(label_q)s has no training example left"),
    marked("label %(label_q)s has no training example"),
    marked("label %(label_q)s belongs to the earlier task %(task_q)s"),
    marked("no task has a label %(label_q)s"),
    marked("only one label (%(label_q)s): a task needs two or more"),
    marked("missing label"),
    marked("columns: %(names_x)s"),
    marked("fields: %(names_x)s"),
    marked("label must be text or a whole number, not %(value_x)s"),
    marked(
        "one label per row is learned, and this row has %(count_n)s: %(labels_x)s; keep one of them, or learn a task "
        "for each kind of label"
    ),
    # texts
    marked("empty text"),
    marked("text must be text, not %(value_x)s"),
    marked("missing text (or tokens with head and tail, or with mention)"),
    marked("is a %(kind_p)s example; the first training row is a %(other_p)s example"),
    marked("%(cut_n)s token[s] of %(all_n)s will be cut off at max_tokens=%(most_n)s"),
    marked("an input has no tokens: the tokenizer returned none for it; remove it"),
    marked("%(count_n)s invisible or control character[s]: %(names_x)s"),
    marked("text that was decoded with the wrong encoding, or damaged"),
    marked("is not in NFC: letters and accents are separate"),
    marked("has full-width, half-width or joined letters (they change in NFKC)"),
    marked("has blanks at its ends, repeated or of an unusual kind"),
    marked("is in %(script_p)s script; most rows are in %(usual_p)s script"),
    marked("is probably in %(language_p)s; most rows are in %(usual_p)s"),
    marked("contains %(found_e)s"),
    marked("%(count_n)s e-mail address[es]"),
    marked("%(count_n)s IBAN[s]"),
    marked("%(count_n)s card number[s]"),
    marked("%(count_n)s IP address[es]"),
    marked("%(count_n)s phone number[s]"),
    # files
    marked("no training example: there are no rows, or none that can be used"),
    marked("has %(count_n)s cell[s] where the header has %(header_n)s"),
    marked("the file ends in the middle of its JSON object: is it complete?"),
    marked("not valid JSON: %(reason_x)s"),
    marked("plain lines have no labels; save texts with labels as CSV (text,label)"),
    marked("%(file_x)s: %(count_n)s problem[s] in %(files_n)s file[s]; nothing was learned"),
    marked("task %(task_q)s cannot be learned; nothing changed"),
    marked("the rows name their subsets (split or training): %(sizes_x)s"),
    marked("no %(subset_p)s set: %(count_n)s of %(all_n)s training row[s] were split off with seed %(seed_n)s"),
    marked("no %(subset_p)s set: %(count_n)s of %(all_n)s training row[s] was split off with seed %(seed_n)s"),
    marked("no %(subset_p)s set, and none was split off: every label has fewer than %(least_n)s distinct inputs"),
    marked("the upload could not be read within %(seconds_n)s seconds; send it in smaller parts"),
    marked("the upload could not be read within the memory allowed; send it in smaller parts"),
    marked("mislabelled rows, close labels and cut inputs: too many rows, or too large a backbone"),
    marked(
        "whether rows are mislabelled: %(count_n)s label[s] with fewer than %(least_n)s training rows, too few to judge"
    ),
    # changes
    marked("this upload is no longer there: it was learned or discarded, or is older than an hour"),
    marked("some inputs cannot be answered"),
    marked("the workspace has no tasks yet; learn a task first"),
    marked("the request was not answered in time; send fewer inputs, or try again later"),
    marked("there is no such key, or it is revoked already"),
    marked("it is the last label of its task: remove the task instead"),
    marked("generation %(number_n)s is not kept"),
    marked("there is no page at this address"),
    marked("the form is incomplete or damaged; send it again"),
    marked("this key may cancel only jobs that it requested; use one to operate"),
    marked("stored examples are shown to keys of the role learn only"),
    marked("files of up to %(most_n)s bytes are imported here; divide the file"),
    marked("%(file_x)s: %(count_n)s problem[s]; nothing was imported"),
    marked("%(file_x)s: the file has no rows; nothing was imported"),
    marked("column %(column_q)s is read as %(field_p)s"),
    marked("cells are separated by %(what_p)s"),
    marked("semicolons"),
    marked("tabs"),
    marked("vertical bars"),
    marked("the new labels cannot be learned; nothing was changed"),
    marked("task %(task_q)s cannot be extended; nothing was changed"),
    marked("there is no item %(number_n)s in review; it may have been forgotten, or deleted by its age"),
    marked("no answer is known for item %(number_n)s that could be confirmed; give its right label"),
    marked("the answer to item %(number_n)s, %(label_q)s, is no label any more; give its right label"),
    marked("there is no change of this number"),
    marked("%(count_n)s jobs wait already; try again when some have ended"),
    marked("no job with this id; the last %(count_n)s ended jobs are remembered"),
    marked("the disk of the workspace is full; nothing was changed"),
    marked("the workspace can be read but not changed: the server may not write it"),
    marked("the workspace cannot be read or written; the server's log says why"),
    marked("memory ran out; send fewer or shorter inputs, or try again later"),
)
_BREAKS: Sequence[str] = (
    marked("event %(number_n)s: %(reason_p)s"),
    marked("action %(number_n)s: %(reason_p)s"),
    marked("is missing"),
    marked("is missing at the start"),
    marked("is missing, and so are those up to %(last_n)s"),
    marked("is missing at the start, and so are those up to %(last_n)s"),
    marked("stands after event %(number_n)s: events were put in another order"),
    marked("was changed after it was recorded"),
    marked("the active versions of the tasks differ from those it recorded"),
    marked("the settings differ from those it recorded"),
    marked("the backbone or other fixed properties of the workspace differ from those it recorded"),
    marked("the backbone or other fixed properties of the workspace differ from those recorded before it"),
    marked("the objects of versions and of the workspace differ from those it recorded"),
    marked("version %(number_n)s of task %(task_q)s is described otherwise than it recorded"),
    marked("version %(number_n)s of task %(task_q)s is in no event"),
    marked("version %(number_n)s of task %(task_q)s has other data or labels than it recorded"),
    marked("objects/%(folder_x)s has other content than it recorded"),
)
"""Where the history is not what was recorded."""
_WORDS: Sequence[str] = (
    marked("Latin"),
    marked("Cyrillic"),
    marked("Greek"),
    marked("Arabic"),
    marked("Hebrew"),
    marked("Devanagari"),
    marked("Bengali"),
    marked("Tamil"),
    marked("Thai"),
    marked("Hangul"),
    marked("Japanese or Chinese"),
    marked("English"),
    marked("German"),
    marked("French"),
    marked("Spanish"),
    marked("Italian"),
    marked("Portuguese"),
    marked("Dutch"),
    marked("Polish"),
    marked("Swedish"),
    marked("Turkish"),
)
_FOR_PAGES: Sequence[tuple[str, str]] = (
    (
        "is not UTF-8 text; it looks like %(encoding_x)s: save it as UTF-8, or add `charset=%(same_x)s` to the content "
        "type",
        marked(
            "is not UTF-8 text, but probably %(encoding_x)s: choose it under “If the file is not read rightly”, or "
            "save the file as UTF-8 (in Excel: “CSV UTF-8”)"
        ),
    ),
    (
        "is not UTF-8 text; save it as UTF-8, or add its `charset` to the content type",
        marked(
            "is not UTF-8 text: choose its encoding under “If the file is not read rightly”, or save the file as UTF-8 "
            "(in Excel: “CSV UTF-8”)"
        ),
    ),
    (
        "is not %(encoding_x)s text (byte %(byte_n)s); give another `charset`",
        marked("is not %(encoding_x)s text: choose another encoding under “If the file is not read rightly”"),
    ),
    (
        "no column named text or tokens; %(columns_p)s. Name the one to read `text`",
        marked(
            "no column is named “text” (%(columns_p)s). Under “If the file is not read rightly”, name the column of "
            "the text"
        ),
    ),
    (
        "no column named label; %(columns_p)s. Name the one to read `label`",
        marked(
            "no column is named “label” (%(columns_p)s). Under “If the file is not read rightly”, name the column of "
            "the label"
        ),
    ),
    (
        "missing text (or tokens with head and tail, or with mention); %(columns_p)s. Name the one to read `text`",
        marked(
            "no column is named “text” (%(columns_p)s). Under “If the file is not read rightly”, name the column of "
            "the text"
        ),
    ),
    (
        "missing label; %(columns_p)s. Name the one to read `label`",
        marked(
            "no column is named “label” (%(columns_p)s). Under “If the file is not read rightly”, name the column of "
            "the label"
        ),
    ),
    (
        "only the sheet %(sheet_q)s is read, the only one with the columns needed; not read: %(others_x)s",
        marked(
            "the sheet “%(sheet_q)s” is read, because it is the only one with the columns needed. Not read: "
            "%(others_x)s. Under “If the file is not read rightly”, you can choose another"
        ),
    ),
    (
        "only the sheet %(sheet_q)s is read, the first that is not empty; not read: %(others_x)s",
        marked(
            "the sheet “%(sheet_q)s” is read, because it is the first that is not empty. Not read: %(others_x)s. Under "
            "“If the file is not read rightly”, you can choose another"
        ),
    ),
    (
        "only the sheet %(sheet_q)s is read; not read: %(others_x)s",
        marked(
            "the sheet “%(sheet_q)s” is read, because it is the first. Not read: %(others_x)s. Under “If the file is "
            "not read rightly”, you can choose another"
        ),
    ),
    (
        "has no sheet %(sheet_q)s; sheets: %(others_x)s",
        marked("the workbook has no sheet “%(sheet_q)s”. It has: %(others_x)s"),
    ),
    (
        "only one new label (%(label_q)s): a task needs two or more. Add examples of another new label, or add it to a "
        "known task (`--into TASK`)",
        marked(
            "only one new label (%(label_q)s): a task needs two or more. Add examples of another new label, or add it "
            "to a known task"
        ),
    ),
    (
        "the new labels cannot become task %(task_q)s, which exists already: give their task another name (`--name`), "
        "or add them to this one (`--into %(same_x)s`)",
        marked(
            "the new labels cannot become the task %(task_q)s, which exists already: choose another name, or add them "
            "to this one"
        ),
    ),
    (
        "unknown file format; readable: %(formats_x)s",
        marked("files of this kind cannot be read. Save the file as CSV or Excel (.xlsx)"),
    ),
    (
        "no task %(task_q)s in this workspace; have: %(tasks_x)s",
        marked("there is no task %(task_q)s. The tasks are: %(tasks_x)s"),
    ),
    (
        "no label %(label_q)s in this workspace; have: %(labels_x)s",
        marked("there is no label %(label_q)s"),
    ),
    (
        "task %(task_q)s has no version %(number_n)s; have: %(versions_x)s",
        marked("the task %(task_q)s has no version %(number_n)s"),
    ),
    (
        'label %(label_q)s is not learned%(meant_x)s; to introduce it, use the verdict "new"',
        marked("the label %(label_q)s is not learned. To introduce it, type it under “A new label”"),
    ),
    (
        'label %(label_q)s is not learned; to introduce it, use the verdict "new"',
        marked("the label %(label_q)s is not learned. To introduce it, type it under “A new label”"),
    ),
    ('the verdict "correct" needs a label', marked("choose the right label")),
    ('the verdict "new" needs a label', marked("type the new label")),
    (
        "no candidate %(number_n)s; have: %(have_x)s",
        marked("the refused change %(number_n)s is no longer there"),
    ),
    (
        "is no Excel workbook (.xlsx)%(hint_x)s",
        marked("is no Excel workbook (.xlsx). Save it anew in Excel, or as CSV"),
    ),
)
"""Messages that say something else on pages, because their advice is for those who use commands or the API."""


def said(language: Language, message: str) -> str | None:
    """Return a message of the library as a page shows it; None if the page's language has no words for it."""
    message = _HINT.sub("", of_a_request(message))
    found = next(((one, match) for one in _phrases() if (match := one.pattern.fullmatch(message))), None)
    if found is None:
        return message if language.is_source else None
    phrase, match = found
    if language.is_source and phrase.same:
        return message
    values = {name: _value(language, name, value) for name, value in match.groupdict().items()}
    return language.gettext(phrase.shown, **values)


def _value(language: Language, name: str, value: str) -> str:
    """Return a value of a phrase: a name without its quotes, or what a phrase in it means."""
    match name[-1]:
        case "q":
            return str(ast.literal_eval(value))
        case "p":
            return said(language, value) or value
        case "e":
            return language.gettext(_COMMA).join(said(language, one) or one for one in value.split(_AND))
    return value


@cache
def _phrases() -> tuple[_Phrase, ...]:
    same = [(message, message) for message in (*_SAME, *_BREAKS, *_WORDS)]
    return tuple(_Phrase(_pattern(given), shown, given == shown) for given, shown in (*_FOR_PAGES, *same))


def _pattern(message: str) -> re.Pattern[str]:
    """Return the pattern of the messages that are made from a phrase."""
    parts, at = [], 0
    for place in _PLACE.finditer(message):
        name = place["name"]
        parts += [re.escape(message[at : place.start()]), f"(?P<{name}>{_FORMS[name[-1]]})"]
        at = place.end()
    parts.append(re.escape(message[at:]))
    return re.compile(_OPTIONAL.sub(r"(?:\1)?", "".join(parts)), re.DOTALL)
