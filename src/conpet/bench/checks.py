"""What is wrong with an experiment's runs, found before the first of them takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from conpet.backbone.backbone import check_frozen_layers
from conpet.backbone.load import count_layers, find_folder
from conpet.bench.experiment import Run
from conpet.bench.results import Result
from conpet.bench.run import check_first_tasks, read_source, stream_of_run
from conpet.commands.checks import check_settings
from conpet.data.benchmarks.plain import OUT_OF_SCOPE
from conpet.data.untested import untested
from conpet.errors import ConfigError, ConpetError, DataError


def check_runs(runs: Iterable[Run], folder: Path, data_folders: Sequence[Path] = ()) -> list[str]:
    """Read all data, make all streams, and look every name up; results that are there must be of the same data.

    Streams by similarity, for which a backbone has to run, are made by their runs alone.

    Args:
        runs: All runs asked for.
        folder: Where their results stand, if there are any.
        data_folders: Where data sets are looked for.

    Returns:
        What should be known of the data, each once: notes of their reading, labels without a test example.

    Raises:
        ConfigError: Something is wrong with a run; the message names the run.
        DataError: Something is wrong with its data.
    """
    digests: dict[str, Callable[[], str] | None] = {}
    notes: dict[str, None] = {}
    checked: set[str] = set()
    for run in runs:
        try:
            made_of = f"{run.data} {run.source!r} {run.stream!r}"
            if made_of not in digests:
                digests[made_of], told = _looked_at(run, data_folders)
                notes |= dict.fromkeys(f"{run.data}: {note}" for note in told)
            if (of_settings := f"{run.learner} {run.variant}") not in checked:
                check_settings(run.settings)
                _check_frozen_layers(run, find_folder(run.backbone))
                checked.add(of_settings)
        except DataError as error:
            raise DataError(f"{run}: {error.summary}", error.problems) from None
        except ConpetError as error:
            raise ConfigError(f"{run}: {error}") from None
        _check_same_data(folder / run.file, digests[made_of])
    return list(notes)


def _check_frozen_layers(run: Run, model: Path) -> None:
    frozen_layers = run.given["backbone"].get("frozen_layers")
    if frozen_layers is not None and (layers := count_layers(model)) is not None:
        check_frozen_layers(run.backbone, layers, frozen_layers)


def _looked_at(run: Run, data_folders: Sequence[Path]) -> tuple[Callable[[], str] | None, Sequence[str]]:
    """Make a run's stream.

    Returns:
        A function that computes the stream's digest, which takes a while, or None for a stream that only a backbone can
        make; and what should be known of the data.
    """
    data = read_source(run.data, tuple(data_folders))
    if run.source.out_of_scope and not data.out_of_scope:
        raise ConfigError(
            f"'data.{run.data}.out_of_scope' is {run.source.out_of_scope}, and the data has no input out of scope: "
            f"leave it out; a folder with a train file may hold such inputs, in a file {OUT_OF_SCOPE} (.jsonl, .csv)"
        )
    if not run.stream.by_similarity:
        stream = stream_of_run(run, data)
        return cache(lambda: stream.digest), (*data.notes, *untested(stream))
    if run.stream.tasks is not None:
        check_first_tasks(run, run.stream.tasks)
    return None, data.notes


def _check_same_data(path: Path, digest: Callable[[], str] | None) -> None:
    if digest is None or not path.exists():
        return
    found = Result.read(path)
    if found.protocol.digest != digest():
        raise ConfigError(
            f"the data of {found.data} are not those that {path} was made of: a file of the data set was changed "
            "since. Remove the results on this data set, or give another folder for the new ones (--results)"
        )
