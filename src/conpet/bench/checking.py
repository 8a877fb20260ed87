"""What is wrong with an experiment's runs, found before the first of them takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from conpet.backbone.load import find_folder
from conpet.bench.experiment import Run
from conpet.bench.measuring import read_source, stream_of_run
from conpet.bench.results import Result
from conpet.errors import ConfigError, ConpetError, DataError
from conpet.workspace.checking import check_names


def check_runs(runs: Iterable[Run], folder: Path, data_folders: Sequence[Path] = ()) -> None:
    """Read all data, make all streams, and look every name up; results that are there must be of the same data.

    Streams by similarity, for which a backbone has to run, are made by their runs alone.

    Args:
        runs: All runs asked for.
        folder: Where their results stand, if there are any.
        data_folders: Where data sets are looked for.

    Raises:
        ConfigError: Something is wrong with a run; the message names the run.
        DataError: Something is wrong with its data.
    """
    digests: dict[str, str | None] = {}
    checked: set[str] = set()
    for run in runs:
        try:
            made_of = f"{run.data} {run.source!r} {run.stream!r}"
            if made_of not in digests:
                digests[made_of] = _digest(run, data_folders)
            if (of_settings := f"{run.learner} {run.variant}") not in checked:
                check_names(run.settings)
                find_folder(run.backbone)
                checked.add(of_settings)
        except DataError as error:
            raise DataError(f"{run}: {error.summary}", error.problems) from None
        except ConpetError as error:
            raise ConfigError(f"{run}: {error}") from None
        _check_same_data(folder / run.file, digests[made_of])


def _digest(run: Run, data_folders: Sequence[Path]) -> str | None:
    data = read_source(run.data, tuple(data_folders))
    return None if run.stream.by_similarity else stream_of_run(run, data).digest


def _check_same_data(path: Path, digest: str | None) -> None:
    if digest is None or not path.exists():
        return
    found = Result.read(path)
    if found.protocol.digest != digest:
        raise ConfigError(
            f"the data of {found.data} are not those that {path} was made of: a file of the data set was changed "
            "since. Remove the results on this data set, or give another folder for the new ones (--results)"
        )
