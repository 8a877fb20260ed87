"""`conpet bench table`, `plot` and `compare`: read the results of experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line
from conpet.errors import ConfigError
from conpet.files import require_new_files_in, require_writable_file

if TYPE_CHECKING:
    from conpet.bench.groups import Group
    from conpet.bench.measures import Measure
    from conpet.bench.results import Result

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of an experiment's results.", show_default=False)
]
Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...", help="Folders with results, for example yours and a published one.", show_default=False
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="Column, by its name in the result files; may be repeated.",
        show_default="those of the experiment, else accuracy, forgetting, time and memory",
    ),
]
Learners = Annotated[
    list[str] | None, typer.Option("--learner", help="Only these learners, in this order.", show_default=False)
]
Variants = Annotated[
    list[str] | None, typer.Option("--variant", help="Only these variants, in this order.", show_default=False)
]
DataSets = Annotated[list[str] | None, typer.Option("--data", help="Only these data sets.", show_default=False)]
ExperimentFile = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        metavar="FILE",
        help="Take the columns and the order of rows from this experiment.",
        show_default=False,
    ),
]
CommonOrders = Annotated[
    bool, typer.Option("--common-orders", help="Use only the orders and seeds for which every learner has a result.")
]


def table(
    folder: Folder,
    form: Annotated[str, typer.Option("--format", help="markdown, csv or latex.")] = "markdown",
    metric: Metrics = None,
    learner: Learners = None,
    variant: Variants = None,
    data: DataSets = None,
    experiment: ExperimentFile = None,
    common_orders: CommonOrders = False,
    join_variants: Annotated[
        bool,
        typer.Option(
            "--join-variants", help="One table for all variants, even if their protocols differ (the table notes it)."
        ),
    ] = False,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.", show_default=False)
    ] = None,
) -> None:
    """Print tables of results: means over the orders with 95% intervals, one table for each protocol."""
    from conpet.bench.tables import build_table, write_tables

    if target is not None:
        require_writable_file(target)
    groups = _groups([folder], learner, variant, data, experiment, common_orders, join_variants)
    columns = _columns(groups, metric, experiment)
    text = write_tables([build_table(group, columns) for group in groups], form)
    if target is None:
        sys.stdout.write(text)
    else:
        target.write_text(text, encoding="utf-8")
        line(str(target))


def plot(
    folder: Folder,
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.svg|FILE.png|DIR",
            help="File or folder to draw to; with several data sets, the name of each is added to its file name.",
            show_default=False,
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="accuracy (after each task), cost (accuracy against cost) or growth (cost as the stream grows)."
        ),
    ] = "accuracy",
    cost: Annotated[
        str, typer.Option(metavar="METRIC", help="Horizontal axis of --kind cost.")
    ] = "cpu_seconds_per_task",
    learner: Learners = None,
    variant: Variants = None,
    data: DataSets = None,
    experiment: ExperimentFile = None,
    common_orders: CommonOrders = False,
) -> None:
    """Plot results, one file per data set and protocol."""
    from conpet.bench.plots import draw, save

    if target.is_dir() or not target.suffix:
        require_new_files_in(target)
    else:
        require_writable_file(target)
    groups = _groups([folder], learner, variant, data, experiment, common_orders)
    figures = [(group, draw(kind, group, cost=cost, everyone=bool(learner))) for group in groups]
    for group, figure in figures:
        path = _path(target, kind, group, groups)
        save(figure, path)
        line(str(path))


def compare(
    folders: Folders,
    against: Annotated[
        str | None,
        typer.Option(metavar="LEARNER", help="Learner to test all others against.", show_default="the best"),
    ] = None,
    metric: Metrics = None,
    learner: Learners = None,
    variant: Variants = None,
    data: DataSets = None,
    experiment: ExperimentFile = None,
    common_orders: CommonOrders = False,
) -> None:
    """Print the results of several folders in one table, with paired tests of the first metric between learners.

    Results of different protocols are refused. Within a folder, each difference is taken over the orders and seeds that
    both learners have. Across folders, all learners must have the same ones, unless --common-orders is given.
    """
    from conpet.bench import paired
    from conpet.bench.tables import build_table, markdown

    groups = _groups(folders, learner, variant, data, experiment, common_orders)
    columns = _columns(groups, metric, experiment)
    comparisons = [paired.pair(group, columns[0], against) for group in groups]  # errors come before any output
    for group, pairs in zip(groups, comparisons, strict=True):
        sys.stdout.write(markdown([build_table(group, columns)]) + "\n")
        if pairs is not None:
            sys.stdout.write(paired.markdown(pairs) + "\n\n")


def _groups(
    folders: Sequence[Path],
    learners: Sequence[str] | None,
    only_variants: Sequence[str] | None,
    data: Sequence[str] | None,
    experiment: Path | None,
    common_orders: bool,
    join_variants: bool = False,
) -> list[Group]:
    from conpet.bench.experiment import Experiment
    from conpet.bench.groups import grouped

    if len(set(folders)) < len(folders):
        raise ConfigError("the same folder is named twice")
    chosen = Experiment.read(experiment) if experiment else None
    return grouped(
        {str(folder): _results(folder) for folder in folders},
        learners=learners or (),
        order=[*(chosen.learners if chosen else ())],
        variants=[*(chosen.variants if chosen else ())],
        only_variants=only_variants or (),
        data=data or (),
        common_orders=common_orders,
        join_variants=join_variants,
    )


def _results(folder: Path) -> list[Result]:
    from conpet.bench.results import read_results

    results = read_results(folder)
    if not results:
        raise ConfigError(f"no results in {folder}; `conpet bench run EXPERIMENT` writes them")
    return results


def _columns(groups: Sequence[Group], metrics: Sequence[str] | None, experiment: Path | None) -> list[Measure]:
    from conpet.bench.experiment import Experiment
    from conpet.bench.measures import measures

    names = metrics or (Experiment.read(experiment).metrics if experiment else ())
    return measures(names, [result for group in groups for result in group.results])


def _path(target: Path, kind: str, group: Group, groups: Sequence[Group]) -> Path:
    """Return the file to draw a group to."""
    name = group.file_name(with_experiment=len({other.experiment for other in groups}) > 1)
    if target.is_dir() or not target.suffix:
        return target / f"{name}-{kind}.svg"
    return target if len(groups) == 1 else target.with_stem(f"{target.stem}-{name}")
