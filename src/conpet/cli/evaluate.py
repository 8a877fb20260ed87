"""`conpet evaluate`: measure accuracy on the test examples, or on a labelled file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import line, messages, output, print_cut, print_error, print_json, stages
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    Sheet,
    TextColumn,
    WorkspacePath,
    reading,
    require_path,
)
from conpet.cli.workspace import open_workspace
from conpet.errors import CorruptionError, listed, plural

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.data.checks import Located
    from conpet.data.raw import ReadOptions
    from conpet.report.label_results import LabelResults
    from conpet.types import Evaluation

_WORST = 10
"""Number of labels shown without --labels."""
_CONFUSIONS = 5
"""Number of confusions shown without --confusion."""


def evaluate(
    workspace: WorkspacePath,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Evaluate on the labelled rows of this file instead; nothing is stored. - reads standard input: JSON "
            "lines, or the format named by --input-format.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="With -i: JSONL or CSV file with the label, answer and score of each row.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help=f"Show all labels, not only the {_WORST} worst ones.")
    ] = False,
    confusion: Annotated[
        bool,
        typer.Option(
            "--confusion",
            help=f"Show all confused labels, not only the {_CONFUSIONS} most frequent ones, with all rows.",
        ),
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    as_json: AsJson = False,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Evaluate on the test examples of all tasks and compare with the reference classifiers. Changes nothing.

    Precision, recall and F1 are shown by label, the worst first, with the labels that are confused most often.
    With -i, accuracy is measured on a file of your own. Rows whose label was not learned are reported separately.
    """
    if target is not None and source is None:
        raise typer.BadParameter("the answers are those to a file: name it with -i", param_hint="--output")
    if source is not None:
        how = reading(
            text=text_column,
            label=label_column,
            identifier=id_column,
            encoding=encoding,
            form=input_format,
            inclusive_ends=inclusive_ends,
            sheet=sheet,
        )
        of_file = _evaluate_file(source, target, how, lambda: open_workspace(workspace, backbone, device))
        if as_json:
            print_json(_file_json(source, of_file))
        else:
            _print_file(source, of_file, labels, confusion)
        _print_left_out(of_file)
        return
    from conpet.commands.report import evaluated, overall, report_data
    from conpet.report.tables import final_table, tasks_table
    from conpet.report.text import untested

    opened = open_workspace(workspace, backbone, device)
    data = report_data(opened.store)
    evaluation: Evaluation | None = None
    if data.tasks:
        with stages(data.workspace.name) as progress:
            evaluation = opened.evaluate(progress=progress)
        data = evaluated(data, evaluation)
        print_cut(opened, evaluation.cut, "test example")
    last = overall(data)
    if as_json:
        results = data.label_results.model_dump(mode="json") if data.label_results else _NO_RESULTS
        left_out = [one.to_json() for one in evaluation.left_out] if evaluation else []
        print_json(dict(data.summary) | results | {"left_out": left_out})
    elif last is None or not data.tasks:
        line(f"{workspace} has learned nothing yet; next: conpet learn {workspace} TASK_OR_STREAM")
    else:
        out = output()
        out.print(tasks_table(data.tasks, last))
        out.print()
        out.print(final_table(last, data.workspace.backbone))
        if data.label_results:
            _print_label_results(data.label_results, labels, confusion)
        if without := [task.name for task in data.tasks if not task.test]:
            line(untested(without))
    if evaluation is not None:
        _print_left_out(evaluation)


def _print_left_out(evaluation: Evaluation) -> None:
    """Print what is missing from the results, if anything is, and end with exit status 1."""
    if not evaluation.left_out:
        return
    for left_out in evaluation.left_out:
        print_error(CorruptionError(str(left_out)))
    line("`conpet modules verify` checks all files of the workspace", messages())
    raise typer.Exit(1)


_NO_RESULTS = dict.fromkeys(("label_scores", "macro_average", "weighted_average", "confusion", "calibration"))
"""What `--json` prints for a workspace without test examples."""


def _print_label_results(results: LabelResults, all_labels: bool, all_confusions: bool) -> None:
    from conpet.report.tables import confusion_table, labels_table
    from conpet.report.text import calibration, label, shorten

    out = output()
    out.print()
    out.print(labels_table(results, None if all_labels else _WORST))
    if results.confusion:
        out.print()
        table = confusion_table(results, None if all_confusions else _CONFUSIONS)
        table.expand = out.is_terminal
        out.print(table)
    if all_confusions:
        for pair in results.confusion:
            answer = "a task without labels" if pair.answer is None else label(pair.answer)
            line(f"{label(pair.label)} answered with {answer}:")
            for one in pair.examples:
                quoted = "" if one.text is None else f": {shorten(one.text, 200)}"
                line(f"  row {one.row}, score {one.score:.2f}{quoted}")
    measured = results.calibration
    out.print()
    line(calibration(measured.expected_calibration_error, measured.overconfidence, len(measured.bins)))


def _evaluate_file(source: str, target: str | None, how: ReadOptions, workspace: Callable[[], ConPET]) -> Evaluation:
    """Evaluate on the rows of a file, and write the answers; the evaluation numbers examples by their rows."""
    from conpet.data.evaluation_files import read_labelled, write_evaluated
    from conpet.data.prediction_files import PredictionFormat
    from conpet.data.source import STDIN, source_name
    from conpet.files import require_writable_file, written_aside

    form = PredictionFormat.of(Path(target)) if target is not None else None
    require_path(source, "nothing was evaluated")
    if target is not None:
        require_writable_file(Path(target), None if source == STDIN else Path(source))
    rows = read_labelled(source, how, lambda text: line(f"note: {text}", messages()))
    opened = workspace()
    evaluation = _evaluated_rows(opened, source_name(source), rows)
    print_cut(opened, evaluation.cut, "row")
    if target is not None and form is not None:
        answers = {one.row: one for one in (*evaluation.answers, *evaluation.unknown)}
        with written_aside(Path(target)) as stream:
            write_evaluated(rows, answers | {one.row: one for one in evaluation.unanswered}, stream, form)
        line(f"{target}: {plural(len(rows) - len(evaluation.unanswered), 'answer')}", messages())
    trained = evaluation.trained_on
    return replace(
        evaluation,
        answers=tuple(replace(one, row=rows[one.row - 1].row) for one in evaluation.answers),
        unknown=tuple(replace(one, row=rows[one.row - 1].row) for one in evaluation.unknown),
        unanswered=tuple(replace(one, row=rows[one.row - 1].row) for one in evaluation.unanswered),
        trained_on=trained and replace(trained, rows=tuple(rows[number - 1].row for number in trained.rows)),
    )


def _evaluated_rows(workspace: ConPET, source: str, rows: Sequence[Located]) -> Evaluation:
    """Evaluate on rows of a file; problems name the file and row."""
    from conpet.errors import DataError

    try:
        with stages(source) as progress:
            return workspace.evaluate([located.example for located in rows], progress=progress)
    except DataError as error:
        problems = [
            replace(problem, file=source, row=rows[problem.row - 1].row) if problem.row else problem
            for problem in error.problems
        ]
        raise DataError(f"{source}: {error.summary}", problems) from error


def _unknown_sentence(evaluation: Evaluation) -> str:
    from conpet.report.text import fitting, percent

    unknown = Counter(one.label for one in evaluation.unknown)
    known, others = len(evaluation.answers), len(evaluation.unknown)
    right = sum(one.correct for one in evaluation.answers)
    verb = "has" if others == 1 else "have"
    return (
        f"{others:,} of {plural(known + others, 'row')} {verb} a label that the workspace has not learned "
        f"({fitting([label for label, _ in unknown.most_common()], 60)}); they are not part of the results. Counted as "
        f"wrong, accuracy is {percent(right / (known + others))}"
    )


def _trained_sentence(evaluation: Evaluation, rows: int) -> str:
    """Say how many rows were trained on, or "" if none was; and what is not known about it."""
    from conpet.report.text import percent

    trained = evaluation.trained_on
    if trained is None:
        return ""
    sentences = []
    if trained.rows:
        verb = "was" if len(trained.rows) == 1 else "were"
        others = [one for one in evaluation.answers if one.row not in set(trained.rows)]
        right = sum(one.correct for one in others)
        rest = f"; on the other {plural(len(others), 'row')} it is {percent(right / len(others))}" if others else ""
        sentences.append(
            f"{len(trained.rows):,} of {plural(rows, 'row')} {verb} trained on ({listed(trained.rows, 10)}): accuracy "
            f"on them is not a test{rest}"
        )
    if trained.not_compared:
        examples = f"{plural(trained.not_compared, 'example')} that it learned from"
        sentences.append(
            f"the workspace does not store the texts of {examples}; {'further ' if trained.rows else ''}rows of the "
            "file may be among them"
        )
    return ". ".join(sentences)


def _file_json(source: str, evaluation: Evaluation) -> dict[str, Any]:
    from conpet.commands.report import label_results, measures
    from conpet.data.source import source_name
    from conpet.types import TrainedOn

    results = label_results(evaluation.answers)
    unknown = Counter(one.label for one in evaluation.unknown)
    measured = measures(evaluation).model_dump(
        mode="json", exclude={"forgetting", "backward_transfer", "forgetting_examples"}
    )
    trained = evaluation.trained_on or TrainedOn(())
    return {
        "file": source_name(source),
        "rows": len(evaluation.answers) + len(evaluation.unknown) + len(evaluation.unanswered),
        **measured,
        "unknown_labels": {
            label: {
                "rows": rows,
                "answers": dict(Counter(str(one.answer) for one in evaluation.unknown if one.label == label)),
            }
            for label, rows in unknown.most_common()
        },
        "cut_rows": evaluation.cut.cut,
        "trained_on": {"rows": list(trained.rows), "not_compared": trained.not_compared},
        "left_out": [one.to_json() for one in evaluation.left_out],
        **(results.model_dump(mode="json") if results else _NO_RESULTS),
    }


def _print_file(source: str, evaluation: Evaluation, all_labels: bool, all_confusions: bool) -> None:
    from conpet.commands.report import label_results, measures
    from conpet.data.source import source_name
    from conpet.report.tables import result_table

    rows = len(evaluation.answers) + len(evaluation.unknown) + len(evaluation.unanswered)
    line(f"{source_name(source)}: {plural(rows, 'row')}; nothing was stored")
    if note := _trained_sentence(evaluation, rows):
        line(f"note: {note}", messages(), "yellow")
    if not evaluation.answers:
        return
    output().print(result_table(measures(evaluation), history=False))
    if results := label_results(evaluation.answers):
        _print_label_results(results, all_labels, all_confusions)
    if evaluation.unknown:
        line(_unknown_sentence(evaluation))
