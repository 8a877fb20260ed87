"""`conpet stream`: make task streams from labelled data."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import counting, line, messages, output
from conpet.cli.help import App
from conpet.cli.options import (
    DataFolders,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    Sheet,
    TextColumn,
    reading,
)
from conpet.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from conpet.data import TaskStream
    from conpet.data.labelled import LabelledData, PerLabel
    from conpet.data.recipe import StreamRecipe

app = App(help="Make task streams from labelled data.", no_args_is_help=True)
AtMost = Annotated[int | None, typer.Option(min=1, help="Most examples per label.", show_default="all")]
_SHOWN = 30
"""Most tasks to print."""
_LABEL_COLUMNS = 76
"""Width of the printed labels of a task, in characters."""
_DOCUMENTS = ("LICENSE*", "LICENCE*", "NOTICE*", "SOURCE*")
"""Licence and source files of a data set, copied with its examples."""
_GROUPING_WAYS = ("given", "random", "frequency", "similar-together", "similar-apart")
"""Values of --by. "pieces" is left out: its labels have no meaning, and it only serves to measure costs."""


@app.callback()
def _stream() -> None:
    """Make typer treat `make` as a subcommand although it is the only one."""


@app.command()
def make(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A benchmark data set, or a path.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    tasks: Annotated[int | None, typer.Option(min=1, help="Number of tasks.", show_default=False)] = None,
    by: Annotated[
        str,
        typer.Option(
            help="How to divide labels into tasks: given (by groups), random, frequency, similar-together (easy) or "
            "similar-apart (hard)."
        ),
    ] = "given",
    grouping: Annotated[
        str | None, typer.Option(help="Name of a grouping of the data.", show_default="the default grouping")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own groups, in YAML or JSON: a list of lists of labels, or a mapping from task names to lists.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed for random groups and for the choice of examples.")] = 0,
    train: AtMost = None,
    validation: AtMost = None,
    test: AtMost = None,
    backbone: Annotated[
        str, typer.Option(help="Backbone whose features measure the similarity of labels.")
    ] = "minilm-l6",
    data_folder: DataFolders = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
) -> None:
    """Make a task stream from a labelled data set, as a folder for `conpet learn`."""
    from conpet.data.benchmarks import read_data
    from conpet.data.labelled import PerLabel
    from conpet.data.recipe import StreamRecipe
    from conpet.data.stream_writer import json_lines, write_stream

    if by not in _GROUPING_WAYS:
        raise UnknownNameError(f"--by {by} is not a way to make tasks; available: {', '.join(_GROUPING_WAYS)}")
    recipe = StreamRecipe.parse({"by": by, "tasks": tasks, "grouping": grouping, "seed": seed})
    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    data = read_data(source, data_folder or (), options)
    if groups is not None:
        data = _with_groups(data, groups, recipe.by, recipe.grouping)
    per_label = PerLabel(train, validation, test)
    stream = recipe.stream_of(data, per_label, vectors=lambda: _vectors(data, backbone))
    extra = _documents(source, data_folder or ())
    if data.out_of_scope:
        extra["out_of_scope.jsonl"] = json_lines(data.out_of_scope)
    write_stream(stream, folder, extra, [*_about(data, recipe, per_label, backbone), *_warning(extra)])
    for note in (*data.notes, *_notes(data, stream, per_label, seed)):
        line(f"note: {note}", messages())
    _print(stream)
    line(f"learn them with: conpet learn WORKSPACE {shlex.quote(str(folder))}", style="dim")


def _with_groups(data: LabelledData, file: Path, by: str, grouping: str | None) -> LabelledData:
    from conpet.data.groups import read_groups

    if by != "given" or grouping is not None:
        other = "--grouping" if grouping is not None else f"--by {by}"
        raise ConfigError(f"--groups {file} and {other} both define the tasks; give only one of them")
    return replace(data, groupings={file.name: read_groups(file)})


def _vectors(data: LabelledData, backbone: str) -> Mapping[str, NDArray[Any]]:
    from conpet.bench.similarity import label_vectors

    with counting("comparing labels", len(data.labels)) as progress:
        return label_vectors(data, backbone, progress=progress)


def _documents(source: str, folders: Sequence[Path]) -> dict[str, bytes]:
    """Return the licence and source files of the data, by file name."""
    from conpet.data.benchmarks.catalog import data_folders

    places = (*(folder / source for folder in data_folders(folders)), Path(source).expanduser())
    home = next((place for place in places if place.is_dir()), None)
    paths = [path for pattern in _DOCUMENTS for path in home.glob(pattern)] if home else []
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _about(data: LabelledData, recipe: StreamRecipe, per_label: PerLabel, backbone: str) -> Iterator[str]:
    """Describe how a stream was made; the same command gives the same text."""
    from conpet.data.labelled import SUBSETS

    yield f"Made by conpet stream make from the data set {data.name}."
    grouping = recipe.grouping or next(iter(data.groupings), None)
    how = f"grouping {grouping}" if recipe.by == "given" else f"tasks {recipe.tasks}"
    similarity = f", backbone {backbone}" if recipe.by_similarity else ""
    yield f"Recipe: by {recipe.by}, {how}, seed {recipe.seed}{similarity}."
    sizes = ", ".join(f"{subset} {getattr(per_label, subset) or 'all'}" for subset in SUBSETS)
    yield f"Most examples per label: {sizes}."


def _warning(documents: Collection[str]) -> Iterator[str]:
    if sources := sorted(name for name in documents if name.startswith("SOURCE")):
        yield f"Counts in {', '.join(sources)} refer to the whole data set, not to this stream."


def _notes(data: LabelledData, stream: TaskStream, per_label: PerLabel, seed: int) -> Iterator[str]:
    """Yield notes on data that the stream leaves out, and on labels with too few examples."""
    from collections import Counter

    from conpet.data.benchmarks.reading import listed
    from conpet.data.labelled import SUBSETS, left_out
    from conpet.data.untested import untested
    from conpet.report import text

    labels = [label for task in stream for label in task.labels]
    if without := set(data.labels) - set(labels):
        yield f"{len(without):,} of {text.plural(len(data.labels), 'label')} are in no task: {listed(without, 10)}"
    missing = left_out(data, stream, per_label, seed=seed)
    if repeated := _by_subset({subset: count.repeated for subset, count in missing.items()}):
        yield f"repeated inputs with the same label are left out: {repeated}"
    if trained_on := _by_subset({subset: count.trained_on for subset, count in missing.items()}):
        yield (
            f"held-out inputs that are also training examples are left out: {trained_on}; the held-out examples "
            "therefore depend on the choice of training examples"
        )
    for subset in SUBSETS:
        wanted: int | None = getattr(per_label, subset)
        counts = Counter(example.label for task in stream for example in getattr(task, subset))
        few = sum(counts[label] < wanted for label in labels) if wanted else 0
        if few:
            yield f"{few:,} of {text.plural(len(labels), 'label')} have fewer than {wanted:,} {subset} examples"
    yield from untested(stream)


def _by_subset(counts: Mapping[str, int]) -> str:
    """Return "2 train, 5 test", without the subsets that have none."""
    return ", ".join(f"{count:,} {subset}" for subset, count in counts.items() if count)


def _print(stream: TaskStream) -> None:
    from conpet.report.tables import stream_table
    from conpet.report.text import fitting, shorten

    rows = [(task.name, len(task.labels), len(task.train), len(task.validation), len(task.test)) for task in stream]
    output().print(stream_table(rows, _SHOWN))
    line("labels:")
    for task in stream[:_SHOWN]:
        line(f"  {shorten(task.name, 24)}: {fitting(task.labels, _LABEL_COLUMNS)}")
    if len(stream) > _SHOWN:
        line(f"  and the labels of {len(stream) - _SHOWN:,} more tasks")
