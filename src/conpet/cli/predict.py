"""`conpet predict`: label texts, or the rows of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import counting, line, messages, output, print_cut
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LogFolder,
    Sheet,
    TextColumn,
    reading,
    require_path,
)
from conpet.cli.remote import Key, Server, open_predictor
from conpet.cli.workspace import open_workspace
from conpet.errors import plural
from conpet.files import require_writable_file, written_aside

if TYPE_CHECKING:
    from conpet.data.prediction_files import PredictionFormat, Predictor, Row, Written
    from conpet.data.raw import ReadOptions
    from conpet.types import Prediction, PredictOptions

STANDARD = "-"


def predict(
    workspace: Annotated[
        str | None,
        typer.Argument(metavar="WORKSPACE", help="Folder of the workspace; none with --server.", show_default=False),
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts to label.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help='A file in any format that `learn` reads, or plain lines (.txt), with "text" (or spans); labels are '
            "not needed. - reads standard input: JSON lines, or the format named by --input-format.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="JSONL or CSV file; created when all predictions are done."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="jsonl|csv", help="Output format; by default from the suffix of the output file."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of labels with scores for each input.")] = 3,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave the label empty if its score is lower, and write it as `rejected`."),
    ] = 0.0,
    on_error: Annotated[
        str,
        typer.Option(
            metavar="fail|skip|report",
            help="Rows that cannot be predicted: name all of them and predict nothing, leave them out, or write their "
            "errors in their places.",
        ),
    ] = "fail",
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--no-deterministic",
            help="Scores do not depend on the other inputs, to the last bit; slower. Default: as in the settings.",
            show_default=False,
        ),
    ] = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    backbone: BackboneMoved = None,
    device: Device = None,
    server: Server = None,
    key: Key = None,
) -> None:
    """Predict labels for texts, or for the rows of a file of any size.

    Each answer has a label, a score, a task, the version of its module, and the next likeliest labels. It also says
    what to do: answer with the label, ask which of some candidates is right, or decline because the input belongs to
    nothing learned; `conpet costs` sets when.
    On a terminal, texts are answered in a table; with --json or in a pipe, each answer is one line of JSON.
    All rows are checked before the first prediction; with --on-error skip or report, each row is checked in its turn.
    """
    if server is not None:
        from conpet.store.layout import DATABASE

        if workspace is not None and (Path(workspace) / DATABASE).exists():
            raise typer.BadParameter(
                f"{workspace} is a workspace; with --server there is none to name: the server has its own",
                param_hint="WORKSPACE",
            )
        texts = [*([workspace] if workspace is not None else []), *(texts or [])]
    elif workspace is None:
        raise typer.BadParameter("give the folder of a workspace, or --server URL", param_hint="WORKSPACE")
    if bool(texts) == bool(source):
        raise typer.BadParameter("give either texts, or a file with -i (- for standard input)", param_hint="TEXT or -i")
    chosen = _format(form, target, as_json)
    options = _options(top, min_score, on_error)
    how = reading(
        text=text_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    if source is not None:
        require_path(source, "nothing was predicted")
    if target not in (None, STANDARD):
        require_writable_file(Path(target or ""), Path(source) if source not in (None, STANDARD) else None)
    opened: Predictor
    if server is not None:
        opened = open_predictor(
            server, key, backbone=backbone, device=device, deterministic=deterministic, log_to=log_to
        )
    else:
        opened = open_workspace(Path(str(workspace)), backbone, device, deterministic=deterministic, log_to=log_to)
    if source is None and target in (None, STANDARD) and chosen is None and sys.stdout.isatty():
        _show(opened, texts or [], options)
    else:
        _stream(opened, _rows(opened, texts, source, options, how), target, chosen, options)


def _options(top: int, min_score: float, on_error: str) -> PredictOptions:
    from conpet.types import ON_ERROR, PredictOptions

    if on_error not in ON_ERROR:
        raise typer.BadParameter(f"{on_error!r}: give one of {', '.join(ON_ERROR)}", param_hint="--on-error")
    return PredictOptions(top, min_score, on_error)


def _format(form: str | None, target: str | None, as_json: bool) -> PredictionFormat | None:
    from conpet.data.prediction_files import PredictionFormat

    if form is not None and form not in list(PredictionFormat):
        raise typer.BadParameter(
            f"{form!r} is not a format; available: {', '.join(PredictionFormat)} (--input-format is that of the input)",
            param_hint="--format",
        )
    if form is not None:
        return PredictionFormat(form)
    if target not in (None, STANDARD):
        return PredictionFormat.of(Path(str(target)))
    return PredictionFormat.JSONL if as_json else None


def _stream(
    workspace: Predictor,
    inputs: AbstractContextManager[tuple[Iterable[Row], int | None]],
    target: str | None,
    form: PredictionFormat | None,
    options: PredictOptions,
) -> None:
    from conpet.data.prediction_files import PredictionFormat, answered, write_answers

    chosen = form or PredictionFormat.JSONL
    shows = target not in (None, STANDARD) or not sys.stdout.isatty()  # else the answers themselves show the progress
    with inputs as (rows, total), counting("predicting", total) if shows else nullcontext(None) as progress:
        answers = answered(workspace, rows, options)
        if target in (None, STANDARD):
            written = write_answers(answers, sys.stdout, chosen, options, progress)
        else:
            with written_aside(Path(str(target))) as stream:
                written = write_answers(answers, stream, chosen, options, progress)
    if not written.predictions and not written.problems:
        line("no rows: nothing was predicted", messages(), "yellow")
    _print_written(workspace, written, None if target == STANDARD else target, options)


def _rows(
    workspace: Predictor, texts: list[str] | None, source: str | None, options: PredictOptions, how: ReadOptions
) -> AbstractContextManager[tuple[Iterable[Row], int | None]]:
    from conpet.data.prediction_files import opened_rows, text_rows

    if source is not None:
        return opened_rows(workspace, source, options.on_error, how, lambda text: line(f"note: {text}", messages()))
    return nullcontext((text_rows(workspace, texts or [], options.on_error), len(texts or [])))


def _print_written(workspace: Predictor, written: Written, target: str | None, options: PredictOptions) -> None:
    """Print how many predictions were written to a file, which rows have none, and how many inputs were cut."""
    print_cut(workspace, written.cut, "input")
    if target is not None:
        rejected = f", {written.rejected:,} of them rejected (score below {options.min_score:g})"
        line(f"{target}: {written.predictions:,} predictions{rejected if written.rejected else ''}", messages())
        if written.asked or written.declined:
            answered = written.predictions - written.asked - written.declined
            line(f"  {answered:,} answer, {written.asked:,} ask, {written.declined:,} decline", messages())
    if not written.problems:
        return
    done = "written with errors in place of predictions" if options.on_error == "report" else "left out"
    line(f"{done}: {plural(written.problems, 'row')}", messages(), "yellow")
    for problem in written.first_problems:
        line(f"  {problem}", messages())
    if more := written.problems - len(written.first_problems):
        line(f"  ... and {more:,} more", messages())


def _decision(answer: Prediction) -> str:
    """Return a decision with the candidates of a question, and the reason unless the label is the answer."""
    if answer.decision == "answer":
        return answer.decision
    listed = [f"- {candidate.shown}" for candidate in answer.candidates]
    return "\n".join([f"{answer.decision}: {answer.reason}", *listed])


def _show(workspace: Predictor, texts: list[str], options: PredictOptions) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.data import Example
    from conpet.data.prediction_files import Written
    from conpet.errors import Problem
    from conpet.report import text as formatting

    answers = workspace.predict(
        texts,
        top_n=options.top_n,
        min_score=options.min_score,
        on_error="fail" if options.on_error == "fail" else "report",
    )
    written = Written()

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("text", "label", "score", "decision", "from", "runners-up"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for text, answer in zip(texts, answers, strict=True):
        written.count(answer if isinstance(answer, Problem) else (Example.of_text(text), answer))
        if isinstance(answer, Problem):
            if options.on_error == "report":
                table.add_row(Text(text), Text(f"error: {answer.reason}", "red"))
            continue
        others = "\n".join(f"{label.shown} {formatting.percent(label.score)}" for label in answer.runners_up)
        rejected = f"none (rejected: {answer.rejected})"
        table.add_row(
            Text(text),
            Text(answer.shown, "bold") if answer.rejected is None else Text(rejected, "dim"),
            formatting.percent(answer.score),
            Text(_decision(answer)),
            Text(f"{answer.task} v{answer.version}"),
            Text(others, "dim"),
        )
    output().print(table)
    if options.on_error == "report":
        written.problems = 0  # they are in the table
    _print_written(workspace, written, None, options)
