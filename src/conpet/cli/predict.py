"""`conpet predict`: label texts, or the rows of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import counting, line, messages, output
from conpet.cli.options import AsJson, BackboneMoved, Device, WorkspacePath
from conpet.cli.workspace import open_workspace
from conpet.files import written_aside

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.data import Example
    from conpet.data.prediction_files import PredictionFormat
    from conpet.types import Prediction

STANDARD = "-"


def predict(
    workspace: WorkspacePath,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts to label.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help='JSONL, CSV or Parquet with "text" (or "tokens" and spans); - reads JSON lines from standard input.',
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
    runners_up: Annotated[int, typer.Option(min=0, help="Number of further labels with each answer.")] = 2,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic/--no-deterministic",
            help="Scores do not depend on the other inputs, to the last bit; slower. Default: as in the settings.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Predict labels for texts, or for the rows of a file of any size.

    Each answer has a label, a score, a task, the version of its module, and runners-up.
    On a terminal, texts are answered in a table; with --json or in a pipe, each answer is one line of JSON.
    """
    if bool(texts) == bool(source):
        raise typer.BadParameter("give either texts, or a file with -i (- for standard input)", param_hint="TEXT or -i")
    chosen = _format(form, target, as_json)
    opened = open_workspace(workspace, backbone, device, deterministic=deterministic)
    if source is None and target in (None, STANDARD) and chosen is None and sys.stdout.isatty():
        inputs = list(texts or [])
        _show(inputs, opened.predict(inputs, runners_up=runners_up))
    else:
        _stream(opened, texts, source, target, chosen, runners_up)


def _format(form: str | None, target: str | None, as_json: bool) -> PredictionFormat | None:
    from conpet.data.prediction_files import PredictionFormat

    if form is not None and form not in list(PredictionFormat):
        raise typer.BadParameter(
            f"{form!r} is not a format; available: {', '.join(PredictionFormat)}", param_hint="--format"
        )
    if form is not None:
        return PredictionFormat(form)
    if target not in (None, STANDARD):
        return PredictionFormat.of(Path(str(target)))
    return PredictionFormat.JSONL if as_json else None


def _stream(
    workspace: ConPET,
    texts: list[str] | None,
    source: str | None,
    target: str | None,
    form: PredictionFormat | None,
    runners_up: int,
) -> None:
    from conpet.data.prediction_files import PredictionFormat, answered, write_answers

    inputs, total = _inputs(texts, source)
    answers = answered(workspace, inputs, runners_up)
    chosen = form or PredictionFormat.JSONL
    with counting("predicting", total) as progress:
        if target in (None, STANDARD):
            write_answers(answers, sys.stdout, chosen, runners_up, progress)
            return
        with written_aside(Path(str(target))) as stream:
            written = write_answers(answers, stream, chosen, runners_up, progress)
    line(f"{target}: {written:,} predictions", messages())


def _inputs(texts: list[str] | None, source: str | None) -> tuple[Iterable[Example], int | None]:
    from conpet.data import Example
    from conpet.data.prediction_files import checked_inputs

    if source is not None:
        return checked_inputs(source)
    return [Example.of_text(text) for text in texts or []], len(texts or [])


def _show(texts: list[str], predictions: list[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    from conpet.report import text as formatting

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("text", "label", "score", "from", "runners-up"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for text, prediction in zip(texts, predictions, strict=True):
        others = "\n".join(f"{label.shown} {formatting.percent(label.score)}" for label in prediction.runners_up)
        table.add_row(
            Text(text),
            Text(prediction.shown, "bold"),
            formatting.percent(prediction.score),
            Text(f"{prediction.task} v{prediction.version}"),
            Text(others, "dim"),
        )
    output().print(table)
