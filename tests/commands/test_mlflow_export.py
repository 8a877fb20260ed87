"""The history in MLflow, in a store of a local file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conpet.errors import ConfigError
from conpet.testing import toy_stream
from tests.helpers.cli import conpet
from tests.helpers.workspaces import stream, workspace


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow.tracking import MlflowClient  # takes a second

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=uri(tmp_path))


def uri(folder: Path) -> str:
    return (folder / "mlruns").as_uri()


def test_each_version_becomes_a_run_and_only_once(client: Any, tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.set_costs(prices={"wrong_answer": 2, "answers": 1000})
    first = conpet("export-mlflow", learner.path, "--tracking-uri", uri(tmp_path), "--experiment", "support")
    assert "experiment support: 2 runs added" in first.out
    learner.learn_batch(toy_stream(4, 2, 8, 2, 4)[2:])
    done = learner.export_mlflow(uri(tmp_path), "support")
    assert (done.added, done.present) == (1, 2)
    assert learner.export_mlflow(uri(tmp_path), "support").added == 0
    found = client.search_runs([client.get_experiment_by_name("support").experiment_id])
    runs = sorted(found, key=lambda run: int(run.data.tags["conpet.generation"]))
    assert [run.data.tags["conpet.tasks"] for run in runs] == ["text-0", "text-1", "text-2, text-3"]
    last, version = runs[-1], learner.cost().versions[-1]
    assert last.data.metrics["whole_accuracy"] == learner.evaluate().whole_accuracy == version.accuracy
    assert last.data.metrics["score.total"] == pytest.approx(version.score.total)
    assert {"accuracy.text-0", "forgetting", "seconds", "tokens"} <= last.data.metrics.keys()
    assert last.data.params["module.rank"] == str(learner.settings.module.rank)
    assert last.data.tags["conpet.digest"] == learner.store.events()[-1].digest
    assert last.data.tags["conpet.gate"] == "passed"
    assert last.info.end_time == int(1000 * learner.store.events()[-1].time.timestamp())
    assert last.info.status == "FINISHED"
    texts = str([run.to_dictionary() for run in runs])
    assert [label for label in learner.labels if label in texts] == []


def test_copies_that_went_on_share_an_experiment(client: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        learner = workspace(tmp_path, 0, name=name)
        learner.learn(stream()[0])
        assert learner.export_mlflow(uri(tmp_path), "both").added == 1
    assert len(client.search_runs([client.get_experiment_by_name("both").experiment_id])) == 2


def test_a_store_that_cannot_be_used_is_said(client: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLflow cannot be used"):
        workspace(tmp_path, 1).export_mlflow("nosuch://place")


def test_a_server_that_does_not_answer_is_said_at_once(client: Any, tmp_path: Path) -> None:
    learner, began = workspace(tmp_path, 1), time.monotonic()
    with pytest.raises(ConfigError, match=r"MLflow's server does not answer \(http://127\.0\.0\.1:1\)"):
        learner.export_mlflow("http://127.0.0.1:1")
    assert time.monotonic() - began < 30


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    refused = conpet("export-mlflow", workspace(tmp_path, 1).path)
    assert refused.code == 1
    assert "pip install 'conpet[mlflow]'" in refused.err
