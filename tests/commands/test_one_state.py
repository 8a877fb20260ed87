"""Learning builds one state and hands it on: nothing is fitted twice, serialised and parsed again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from conpet import ConPET, Example
from conpet.features.statistics import ClosedFormState, Gram
from conpet.testing import Trial, tiny_settings, toy_stream

FIRST, SECOND = toy_stream(2, 2, 4, 2, 3)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count factorisations, assembled statistics, and conversions of examples."""
    counts: Counter[str] = Counter()

    def count(owner: object, name: str, kept: object, key: str) -> None:
        def call(*given: object, **more: object) -> object:
            counts[key] += 1
            return kept(*given, **more)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, call)

    count(torch.linalg, "cholesky_ex", torch.linalg.cholesky_ex, "factorisations")
    count(ClosedFormState, "__post_init__", ClosedFormState.__post_init__, "statistics")
    count(Gram, "stored", Gram.stored, "grams read")
    count(Example, "to_json", Example.to_json, "examples to JSON")
    count(Example, "from_json", Example.from_json, "examples from JSON")
    return counts


def learned(tmp_path: Path, **settings: object) -> ConPET:
    return Trial(tmp_path, tiny_settings(**settings)).taught([FIRST])


@pytest.mark.parametrize("method", ["dynamic", "emr", "lda"])
def test_a_learn_with_evaluation_factors_each_statistic_once(
    method: str, tmp_path: Path, counted: Counter[str]
) -> None:
    workspace = learned(tmp_path, method=method)
    counted.clear()
    report = workspace.learn(SECOND)
    assert report.evaluation is not None
    factored = ("lda", "ridge")
    assert set(factored) <= set(report.evaluation.references)
    scope = ("within-class covariance", "the same without held-out training examples, as there are few others")
    assert counted["factorisations"] == len(factored) + len(scope)
    assert counted["statistics"] == len(("of training examples", "with class means of validation examples, too"))
    assert counted["grams read"] == 0


@pytest.mark.parametrize("method", ["dynamic", "emr", "lda"])
def test_the_next_prediction_fits_nothing(method: str, tmp_path: Path, counted: Counter[str]) -> None:
    workspace = learned(tmp_path, method=method)
    workspace.learn(SECOND)
    counted.clear()
    workspace.predict([example.text for example in SECOND.test])
    assert not counted


def test_examples_become_json_only_to_be_digested_and_stored(tmp_path: Path, counted: Counter[str]) -> None:
    workspace = learned(tmp_path)
    second = toy_stream(2, 2, 4, 2, 3)[1]  # its digest was not asked for before
    counted.clear()
    workspace.learn(second)
    examples = len(SECOND.train) + len(SECOND.validation) + len(SECOND.test)
    assert counted["examples to JSON"] == 2 * examples  # once for the digest of the data, once for the file
    # Those of the first task: validation examples once, since their features are in the cache, and test examples.
    assert counted["examples from JSON"] == len(FIRST.validation) + len(FIRST.test)


def test_rolling_back_and_removing_hand_their_statistics_on(tmp_path: Path, counted: Counter[str]) -> None:
    workspace = learned(tmp_path)
    workspace.learn(SECOND)
    counted.clear()
    workspace.remove(SECOND.name)
    assert counted["grams read"] == 0
    assert counted["statistics"] == len(("of training examples", "with class means of validation examples, too"))
    counted.clear()
    workspace.predict([FIRST.test[0].text])
    assert counted["statistics"] == 0
