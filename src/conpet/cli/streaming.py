"""`conpet stream`: labelled data becomes tasks to learn one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import counting, line, messages, output
from conpet.cli.options import DataFolders
from conpet.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from conpet.data import TaskStream
    from conpet.data.labelled import LabelledData, PerLabel

app = typer.Typer(help="Make task streams of labelled data.", no_args_is_help=True)
AtMost = Annotated[int | None, typer.Option(min=1, help="Examples of a label, at most.", show_default="all")]
_PAPERS = ("LICENSE*", "LICENCE*", "NOTICE*", "SOURCE*")
"""Files of a data set that go where its examples go."""


@app.callback()
def _stream() -> None:
    """Keep `make` a verb of its own, as long as there is no other."""


@app.command()
def make(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A benchmark data set, or a path.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    tasks: Annotated[int | None, typer.Option(help="Number of tasks.", show_default=False)] = None,
    by: Annotated[
        str,
        typer.Option(
            help="How labels become tasks: given (by groups), random, frequency, similar-together (easy) or "
            "similar-apart (hard)."
        ),
    ] = "given",
    grouping: Annotated[
        str | None, typer.Option(help="Which of the groupings of the data.", show_default="the usual one")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Groups of your own, YAML or JSON: a list of lists of labels, or task names to lists of labels.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random groups, and of the choice of examples.")] = 0,
    train: AtMost = None,
    validation: AtMost = None,
    test: AtMost = None,
    backbone: Annotated[str, typer.Option(help="Whose frozen features say which labels are similar.")] = "minilm-l6",
    data_folder: DataFolders = None,
) -> None:
    """Make a task stream of a labelled data set, as a folder to learn from."""
    from conpet.data.formats import read_data
    from conpet.data.labelled import PerLabel
    from conpet.data.recipe import StreamRecipe
    from conpet.data.writing import json_lines, write_stream

    recipe = StreamRecipe.parse({"by": by, "tasks": tasks, "grouping": grouping, "seed": seed})
    if recipe.by == "pieces":
        raise ConfigError("by=pieces makes labels that mean nothing, for measurements of cost from Python alone")
    data = read_data(source, data_folder or ())
    if groups is not None:
        data = _with_groups(data, groups, recipe.by, recipe.grouping)
    per_label = PerLabel(train, validation, test)
    stream = recipe.stream_of(data, per_label, vectors=lambda: _vectors(data, backbone))
    extra = _papers(source, data_folder or ())
    if data.out_of_scope:
        extra["out_of_scope.jsonl"] = json_lines(data.out_of_scope)
    write_stream(stream, folder, extra)
    for note in (*data.notes, *_notes(data, stream, per_label)):
        line(f"note: {note}", messages())
    _print(stream)
    line(f"learn them with: conpet learn WORKSPACE {folder}", style="dim")


def _with_groups(data: LabelledData, file: Path, by: str, grouping: str | None) -> LabelledData:
    from conpet.data.groups import read_groups

    if by != "given" or grouping is not None:
        other = "--grouping" if grouping is not None else f"--by {by}"
        raise ConfigError(f"--groups {file} says which labels make a task, and so does {other}; give one of them")
    return replace(data, groupings={str(file): read_groups(file)})


def _vectors(data: LabelledData, backbone: str) -> Mapping[str, NDArray[Any]]:
    from conpet.bench.similarity import label_vectors

    with counting("comparing labels", len(data.labels)) as progress:
        return label_vectors(data, backbone, progress=progress)


def _papers(source: str, folders: Sequence[Path]) -> dict[str, bytes]:
    """Return the licence and the account of where the data comes from, as far as they lie beside it."""
    from conpet.data.formats.catalog import data_folders

    places = (*(folder / source for folder in data_folders(folders)), Path(source).expanduser())
    home = next((place for place in places if place.is_dir()), None)
    found = [path for pattern in _PAPERS for path in home.glob(pattern)] if home else []
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def _notes(data: LabelledData, stream: TaskStream, per_label: PerLabel) -> Iterator[str]:
    """Say what of the data is not in the stream, or less than was asked for."""
    from collections import Counter

    from conpet.data.labelled import SPLITS
    from conpet.report import text

    labels = [label for task in stream for label in task.labels]
    if left_out := len(set(data.labels) - set(labels)):
        yield f"{left_out:,} of {text.plural(len(data.labels), 'label')} are in no task"
    for split in SPLITS:
        asked: int | None = getattr(per_label, split)
        counts = Counter(example.label for task in stream for example in getattr(task, split))
        few = sum(counts[label] < asked for label in labels) if asked else 0
        if few:
            yield f"{few:,} of {text.plural(len(labels), 'label')} have fewer than {asked:,} {split} examples"


def _print(stream: TaskStream) -> None:
    from conpet.report.tables import stream_table

    rows = [(task.name, len(task.labels), len(task.train), len(task.validation), len(task.test)) for task in stream]
    output().print(stream_table(rows))
