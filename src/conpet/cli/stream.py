"""`conpet stream`: labelled data becomes tasks to learn one after another."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import counting, line, messages, output
from conpet.cli.options import DataFolders
from conpet.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from conpet.data import TaskStream
    from conpet.data.labelled import LabelledData, PerLabel
    from conpet.data.recipe import StreamRecipe

app = typer.Typer(help="Make task streams of labelled data.", no_args_is_help=True)
AtMost = Annotated[int | None, typer.Option(min=1, help="Examples of a label, at most.", show_default="all")]
_SHOWN = 30
"""Number of tasks that are printed."""
_LABEL_COLUMNS = 76
"""Width of the labels of a task."""
_PAPERS = ("LICENSE*", "LICENCE*", "NOTICE*", "SOURCE*")
"""Files of a data set that go where its examples go."""
_WAYS = ("given", "random", "frequency", "similar-together", "similar-apart")
"""Values of --by. The labels of "pieces" mean nothing: it is for measurements of cost, from experiments and Python."""


@app.callback()
def _stream() -> None:
    """Keep `make` a verb of its own, as long as there is no other."""


@app.command()
def make(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A benchmark data set, or a path.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    tasks: Annotated[int | None, typer.Option(min=1, help="Number of tasks.", show_default=False)] = None,
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
    from conpet.data.benchmarks import read_data
    from conpet.data.labelled import PerLabel
    from conpet.data.recipe import StreamRecipe
    from conpet.data.stream_writer import json_lines, write_stream

    if by not in _WAYS:
        raise UnknownNameError(f"--by {by} is no way to make tasks; have: {', '.join(_WAYS)}")
    recipe = StreamRecipe.parse({"by": by, "tasks": tasks, "grouping": grouping, "seed": seed})
    data = read_data(source, data_folder or ())
    if groups is not None:
        data = _with_groups(data, groups, recipe.by, recipe.grouping)
    per_label = PerLabel(train, validation, test)
    stream = recipe.stream_of(data, per_label, vectors=lambda: _vectors(data, backbone))
    extra = _papers(source, data_folder or ())
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
        raise ConfigError(f"--groups {file} says which labels make a task, and so does {other}; give one of them")
    return replace(data, groupings={file.name: read_groups(file)})


def _vectors(data: LabelledData, backbone: str) -> Mapping[str, NDArray[Any]]:
    from conpet.bench.similarity import label_vectors

    with counting("comparing labels", len(data.labels)) as progress:
        return label_vectors(data, backbone, progress=progress)


def _papers(source: str, folders: Sequence[Path]) -> dict[str, bytes]:
    """Return the licence and the account of where the data comes from, as far as they lie beside it."""
    from conpet.data.benchmarks.catalog import data_folders

    places = (*(folder / source for folder in data_folders(folders)), Path(source).expanduser())
    home = next((place for place in places if place.is_dir()), None)
    found = [path for pattern in _PAPERS for path in home.glob(pattern)] if home else []
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def _about(data: LabelledData, recipe: StreamRecipe, per_label: PerLabel, backbone: str) -> Iterator[str]:
    """Say how a stream was made: the same words for the same command."""
    from conpet.data.labelled import SUBSETS

    yield f"Made by conpet stream make of the data set {data.name}."
    given = recipe.grouping or next(iter(data.groupings), None)
    how = f"grouping {given}" if recipe.by == "given" else f"tasks {recipe.tasks}"
    likeness = f", backbone {backbone}" if recipe.by_similarity else ""
    yield f"Recipe: by {recipe.by}, {how}, seed {recipe.seed}{likeness}."
    sizes = ", ".join(f"{split} {getattr(per_label, split) or 'all'}" for split in SUBSETS)
    yield f"Examples of a label, at most: {sizes}."


def _warning(papers: Collection[str]) -> Iterator[str]:
    if sources := sorted(name for name in papers if name.startswith("SOURCE")):
        yield f"Counts in {', '.join(sources)} are those of the whole data set, not of this stream."


def _notes(data: LabelledData, stream: TaskStream, per_label: PerLabel, seed: int) -> Iterator[str]:
    """Say what of the data is not in the stream, or less than was asked for."""
    from collections import Counter

    from conpet.data.benchmarks.reading import listed
    from conpet.data.labelled import SUBSETS, left_out
    from conpet.data.untested import untested
    from conpet.report import text

    labels = [label for task in stream for label in task.labels]
    if without := set(data.labels) - set(labels):
        yield f"{len(without):,} of {text.plural(len(data.labels), 'label')} are in no task: {listed(without, 10)}"
    missing = left_out(data, stream, per_label, seed=seed)
    if repeated := _by_split({split: one.repeated for split, one in missing.items()}):
        yield f"inputs that come again with the same label are left out: {repeated}"
    if trained_on := _by_split({split: one.trained_on for split, one in missing.items()}):
        yield (
            f"held-out inputs that are training examples as well are left out: {trained_on}; so which held-out "
            "examples there are depends on which training examples are taken"
        )
    for split in SUBSETS:
        asked: int | None = getattr(per_label, split)
        counts = Counter(example.label for task in stream for example in getattr(task, split))
        few = sum(counts[label] < asked for label in labels) if asked else 0
        if few:
            yield f"{few:,} of {text.plural(len(labels), 'label')} have fewer than {asked:,} {split} examples"
    yield from untested(stream)


def _by_split(counts: Mapping[str, int]) -> str:
    """Return "2 train, 5 test", without the splits that have none."""
    return ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)


def _print(stream: TaskStream) -> None:
    from conpet.report.tables import stream_table
    from conpet.report.text import fitting, shorten

    rows = [(task.name, len(task.labels), len(task.train), len(task.validation), len(task.test)) for task in stream]
    output().print(stream_table(rows, _SHOWN))
    line("labels:")
    for task in stream[:_SHOWN]:
        line(f"  {shorten(task.name, 24)}: {fitting(task.labels, _LABEL_COLUMNS)}")
    if len(stream) > _SHOWN:
        line(f"  and those of {len(stream) - _SHOWN:,} more tasks")
