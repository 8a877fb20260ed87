"""Checks of an experiment's runs before the first one starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from conpet.backbone.depth import check_frozen_layers, count_layers
from conpet.backbone.load import find_folder
from conpet.bench.experiment import Run
from conpet.bench.results import Result
from conpet.bench.run import check_first_tasks, read_source, stream_of_run
from conpet.commands.checks import check_settings
from conpet.data.benchmarks.plain import OUT_OF_SCOPE
from conpet.data.untested import untested
from conpet.errors import ConfigError, ConpetError, DataError


def check_runs(runs: Iterable[Run], folder: Path, data_folders: Sequence[Path] = ()) -> list[str]:
    """Check the data, streams, names and settings of all runs, and that existing results used the same data.

    Streams by similarity are not made here, because they need a backbone.

    Args:
        runs: The runs to check.
        folder: Folder of their results.
        data_folders: Folders to search for data sets.

    Returns:
        Distinct notes on the data: notes of the readers, and labels without a test example.

    Raises:
        ConfigError: A run cannot be done; the message names it.
        DataError: The data of a run has errors.
    """
    digests: dict[str, Callable[[], str] | None] = {}
    notes: dict[str, None] = {}
    checked: set[str] = set()
    for run in runs:
        try:
            stream_key = f"{run.data} {run.source!r} {run.stream!r}"
            if stream_key not in digests:
                digests[stream_key], data_notes = _inspect(run, data_folders)
                notes |= dict.fromkeys(f"{run.data}: {note}" for note in data_notes)
            if (settings_key := f"{run.learner} {run.variant}") not in checked:
                check_settings(run.settings)
                _check_frozen_layers(run, find_folder(run.backbone))
                checked.add(settings_key)
        except DataError as error:
            raise DataError(f"{run}: {error.summary}", error.problems) from None
        except ConpetError as error:
            raise ConfigError(f"{run}: {error}") from None
        _check_same_data(folder / run.file, digests[stream_key])
    return list(notes)


def _check_frozen_layers(run: Run, model: Path) -> None:
    frozen_layers = run.given["backbone"].get("frozen_layers")
    if frozen_layers is not None and (layers := count_layers(model)) is not None:
        check_frozen_layers(run.backbone, layers, frozen_layers)


def _inspect(run: Run, data_folders: Sequence[Path]) -> tuple[Callable[[], str] | None, Sequence[str]]:
    """Make the stream of a run and collect notes on its data.

    Returns:
        A function that computes the digest of the stream (slow), or None for a stream by similarity; and the notes.
    """
    data = read_source(run.data, tuple(data_folders))
    if run.source.out_of_scope and not data.out_of_scope:
        raise ConfigError(
            f"'data.{run.data}.out_of_scope' is {run.source.out_of_scope}, but the data has no out-of-scope inputs: "
            f"remove the key, or add such inputs to the folder in a file {OUT_OF_SCOPE} (.jsonl, .csv)"
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
    result = Result.read(path)
    if result.protocol.digest != digest():
        raise ConfigError(
            f"the data of {result.data} changed since {path} was written. Remove the results on this data set, or give "
            "another folder for new results (--results)"
        )
