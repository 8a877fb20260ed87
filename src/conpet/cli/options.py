"""Arguments and options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from conpet.cli.console import line, messages
from conpet.data.raw import ReadOptions
from conpet.errors import ConfigError, DataError, Problem


def _existing(folders: list[Path] | None) -> list[Path] | None:
    if missing := [str(folder) for folder in folders or () if not folder.is_dir()]:
        raise ConfigError(f"--data-folder {missing[0]}: no such folder; name a folder that contains data sets")
    return folders


def assignments(given: list[str], first_keys: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the values of `--set KEY=VALUE` options, given in YAML.

    Args:
        given: The options.
        first_keys: The setting meant by a section name with a single value (`module=ia3`).
    """
    import yaml

    values: dict[str, Any] = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        name = (first_keys or {}).get(name, name)
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
        if not value.strip():
            raise typer.BadParameter(
                f"{assignment!r} has no value; write {name}=VALUE, or {name}=none if it may have none",
                param_hint="--set",
            )
        if name in values:
            raise typer.BadParameter(f"{name} is given twice, or also by its own option", param_hint="--set")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{assignment!r}: the value is not YAML", param_hint="--set") from None
    return values


WorkspacePath = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.", show_default=False)
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
NoEvaluate = Annotated[
    bool, typer.Option("--no-evaluate", help="Skip the evaluation on the test examples of all tasks.")
]
NoGate = Annotated[
    bool,
    typer.Option(
        "--no-gate",
        help="Make the change even if earlier answers get worse (see `conpet gate`); the history records it.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Most seconds to wait while another process changes the workspace.",
        show_default="no limit",
    ),
]
BackboneMoved = Annotated[
    str | None,
    typer.Option(
        "--backbone", metavar="FOLDER", help="The folder of the backbone, if it was moved.", show_default=False
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Device, instead of the one in the settings (cpu, cuda, cuda:1).", show_default=False)
]
KeysFile = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="File of API keys.", show_default="keys.sqlite in the workspace"),
]
LogFolder = Annotated[
    Path | None,
    typer.Option(
        "--log-to", metavar="FOLDER", help="Folder of the record of predictions.", show_default="the workspace"
    ),
]
DataFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-folder",
        metavar="FOLDER",
        callback=_existing,
        help="Folder to search first for data sets, each in a subfolder with its name; repeatable (also CONPET_DATA).",
        show_default=False,
    ),
]
_FILES = "Reading files"


def _column(field: str) -> Any:
    return typer.Option(
        metavar="NAME",
        help=f"Column of the {field}, or its number if the file has no header.",
        show_default=field,
        rich_help_panel=_FILES,
    )


TextColumn = Annotated[str | None, _column("text")]
LabelColumn = Annotated[str | None, _column("label")]
IdColumn = Annotated[str | None, _column("id")]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Encoding of text that is not Unicode (cp1252, latin-1, shift_jis, ...).",
        show_default="UTF-8; UTF-16 with a byte order mark",
        rich_help_panel=_FILES,
    ),
]
InputFormat = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Format of the file (conll, tsv, brat-mentions, ...).",
        show_default="from the file's name",
        rich_help_panel=_FILES,
    ),
]
InclusiveEnds = Annotated[
    bool,
    typer.Option(
        "--inclusive-ends",
        help="The end of a span is its last token or character, not the position after it.",
        rich_help_panel=_FILES,
    ),
]

Sheet = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Sheet of an Excel workbook, or its number.",
        show_default="the first that is not empty",
        rich_help_panel=_FILES,
    ),
]


def reading(
    *,
    text: str | None = None,
    label: str | None = None,
    identifier: str | None = None,
    encoding: str | None = None,
    form: str | None = None,
    inclusive_ends: bool = False,
    sheet: str | None = None,
) -> ReadOptions:
    """Return how to read files, from the options of a command.

    Args:
        text: Column of the text.
        label: Column of the label.
        identifier: Column of the id.
        encoding: Name of the encoding.
        form: Name of the format.
        inclusive_ends: Whether the ends of spans are inclusive.
        sheet: Name or number of the sheet of a workbook.

    Raises:
        ConfigError: The encoding is unknown.
        UnknownNameError: The format is unknown.
    """
    from conpet.data.files import check_options

    columns = {"text": text, "label": label, "id": identifier}
    given = {field: column for field, column in columns.items() if column is not None}
    options = ReadOptions(given, encoding, form, inclusive_ends, sheet)
    check_options(options)
    return options


def reading_arguments(options: ReadOptions) -> list[str]:
    """Return the arguments of a command that reads files with these options."""
    values: dict[str, str | int | None] = {f"--{field}-column": column for field, column in options.columns.items()}
    values |= {"--encoding": options.encoding, "--input-format": options.format, "--sheet": options.sheet}
    arguments = [argument for name, value in values.items() if value is not None for argument in (name, str(value))]
    return [*arguments, "--inclusive-ends"] if options.inclusive_ends else arguments


def require_path(path: str | Path, consequence: str) -> None:
    """Check that there is a file or folder, before anything slow is done; "-" is standard input.

    Says how to end the input if standard input is a terminal.

    Args:
        path: The path.
        consequence: What an error means for the command ("nothing was learned").

    Raises:
        DataError: There is none.
    """
    from conpet.data.files import NO_SUCH_PATH
    from conpet.data.source import is_stdin

    if is_stdin(path):
        if sys.stdin.isatty():
            end = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
            line(f"reading standard input; type or paste rows, then end with {end} on a line of its own", messages())
        return
    try:
        exists = Path(path).exists()
    except OSError:
        return  # the reader says why it cannot be read
    if not exists:
        problem = Problem(str(path), None, NO_SUCH_PATH)
        raise DataError(f"{problem}; {consequence}", [problem])
