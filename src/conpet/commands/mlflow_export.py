"""Copy the history of a workspace to MLflow, one run for each version; imports no torch."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conpet.commands.cost import cost_report
from conpet.config import Settings
from conpet.config.base import flat
from conpet.errors import ConfigError
from conpet.evaluation.cost_report import VersionCost
from conpet.evaluation.gate import GATE
from conpet.evaluation.history import Standing, row_of
from conpet.evaluation.metrics import average_accuracy, backward_transfer, forgetting
from conpet.store import EventRecord, Store

DIGEST = "conpet.digest"
"""Tag of a run: the digest of the version's event, which no other version has, not even in a copy that went on."""
_BATCH = 100
"""Most parameters in a request to MLflow."""
_ANSWER_SECONDS = 10.0
"""How long MLflow's server may take for its first answer."""
_LONGEST = 5000
"""Longest value of a tag."""


@dataclass(frozen=True, slots=True)
class MlflowExport:
    """What was copied to MLflow.

    Attributes:
        experiment: Name of the experiment.
        added: Number of runs added.
        present: Number of versions that had their runs.
    """

    experiment: str
    added: int
    present: int


def export_mlflow(store: Store, tracking_uri: str | None = None, experiment: str | None = None) -> MlflowExport:
    """Copy versions that have no run yet to MLflow; see `ConPET.export_mlflow`."""
    mlflow = _require_mlflow()
    _require_answer(tracking_uri or mlflow.get_tracking_uri())
    events = store.events()
    versions = cost_report(store).versions
    name = experiment or store.path.name
    try:
        client = mlflow.tracking.MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(name)
        place = found.experiment_id if found is not None else client.create_experiment(name)
        present = set(_digests(client, place))
        new = [run for run in _runs(events, versions) if run.tags[DIGEST] not in present]
        settings = flat(Settings.parse(store.header().settings).to_json())
        for run in new:
            _add(client, mlflow, place, run, settings)
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(f"MLflow cannot be used ({tracking_uri or 'its default place'}): {error}") from error
    return MlflowExport(name, len(new), len(versions) - len(new))


@dataclass(frozen=True, slots=True)
class _Run:
    generation: int
    name: str
    start: int
    end: int
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def _runs(events: list[EventRecord], versions: tuple[VersionCost, ...]) -> Iterator[_Run]:
    """Yield the run of each version."""
    by_id = {event.id: event for event in events}
    standing = Standing()
    for version in versions:
        event = by_id[version.generation]
        metrics: dict[str, float | None] = {
            "whole_accuracy": version.accuracy,
            "tested": float(version.tested),
            "bytes_stored": float(event.bytes_stored),
            "seconds": sum(cost.seconds for cost in event.costs),
            "tokens": float(sum(cost.tokens for cost in event.costs)),
            "answers": float(version.answers),
            "money.updates": version.updates,
            "money.running": version.running,
            "money.review": version.review,
        }
        if event.metrics:
            row = row_of(event)
            matrix = standing.followed_by(row)
            metrics["average_accuracy"] = average_accuracy(row.tallies)
            metrics["forgetting"], metrics["backward_transfer"] = forgetting(matrix), backward_transfer(matrix)
            metrics |= {f"accuracy.{_allowed(task)}": tally.accuracy for task, tally in row.tallies.items()}
        if version.score is not None:
            metrics |= {f"score.{part}": value for part, value in version.score.to_json().items()}
        end = int(1000 * event.time.timestamp())
        yield _Run(
            version.generation,
            " ".join([f"{version.generation}: {version.verb}", ", ".join(version.tasks)]).strip()[:250],
            end - int(1000 * (metrics["seconds"] or 0.0)),
            end,
            {key: value for key, value in metrics.items() if value is not None},
            {
                "conpet.generation": str(version.generation),
                "conpet.verb": version.verb,
                "conpet.tasks": ", ".join(version.tasks)[:_LONGEST],
                "conpet.actor": event.actor[:_LONGEST],
                DIGEST: event.digest,
                "conpet.gate": str(event.detail.get(GATE, {}).get("verdict", "")),
            },
        )


def _add(client: Any, mlflow: Any, experiment: str, run: _Run, settings: Mapping[str, Any]) -> None:
    """Add a run. It gets its digest last, so that an interrupted one is not taken for complete."""
    entities = mlflow.entities
    made = client.create_run(experiment, start_time=run.start, run_name=run.name)
    parameters = [entities.Param(key, str(value)) for key, value in settings.items()]
    for start in range(0, len(parameters), _BATCH):
        client.log_batch(made.info.run_id, params=parameters[start : start + _BATCH])
    measured = [entities.Metric(key, value, run.end, run.generation) for key, value in run.metrics.items()]
    for start in range(0, len(measured), _BATCH):
        client.log_batch(made.info.run_id, metrics=measured[start : start + _BATCH])
    client.set_terminated(made.info.run_id, end_time=run.end)
    client.log_batch(made.info.run_id, tags=[entities.RunTag(key, value) for key, value in run.tags.items()])


def _digests(client: Any, experiment: str) -> Iterator[str]:
    """Yield the digests of the versions that have a run."""
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from (run.data.tags.get(DIGEST, "") for run in page)
        token = page.token
        if not token:
            return


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow allows in names of metrics."""
    return re.sub(r"[^\w\-. /]", "_", name)[:200]


def _require_answer(uri: str) -> None:
    """Check that MLflow's server answers, with whatever status: MLflow itself tries again for minutes.

    Raises:
        ConfigError: It does not.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(uri, timeout=_ANSWER_SECONDS).close()  # noqa: S310 - no other scheme gets here
    except urllib.error.HTTPError as answer:
        answer.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        if not isinstance(getattr(error, "reason", None), ssl.SSLError):  # MLflow has settings for certificates
            raise ConfigError(
                f"MLflow's server does not answer ({uri}): {error}; start it, or give another address"
            ) from None


def _require_mlflow() -> Any:
    try:
        import mlflow
        import mlflow.entities
        import mlflow.tracking
    except ImportError:
        raise ConfigError("this needs MLflow: pip install 'conpet[mlflow]'") from None
    return mlflow
