"""What `POST /v1/predict` and the lists answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Prediction, Span
from conpet.data import Kind
from conpet.store import CostSource
from conpet.testing import toy_stream
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for task in stream()[:2] for example in task.test]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    learner = workspace(tmp_path_factory.mktemp("served"), 2)
    learner.learn(toy_stream(1, 2, 8, 2, 4, kind=Kind.RELATION)[0], evaluate=False)
    return learner


@pytest.fixture(scope="module")
def server(learner: ConPET) -> Iterator[Served]:
    with served(learner.path) as running:
        yield running


def close(found: Any, expected: Any) -> bool:
    """Compare JSON documents; numbers may differ by rounding."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected))


@pytest.mark.parametrize("top_n", [1, 3, 99])
def test_answers_are_those_of_the_library(server: Served, learner: ConPET, top_n: int) -> None:
    response = server.predict(TEXTS, top_n=top_n)
    assert response.status_code == 200
    expected = [one.to_json() for one in learner.predict(TEXTS, top_n=top_n)]
    assert close(response.json()["predictions"], expected)
    assert response.json()["generation"] == learner.store.generation()


def test_one_input_needs_no_list_and_ids_come_back(server: Served) -> None:
    (alone,) = server.predict(TEXTS[0]).json()["predictions"]
    assert "id" not in alone
    response = server.predict([TEXTS[0], {"text": TEXTS[1], "id": "row 2"}])
    assert [one.get("id") for one in response.json()["predictions"]] == [None, "row 2"]
    assert response.json()["predictions"][0]["label"] == alone["label"]


def test_inputs_with_spans_and_texts_share_a_request(server: Served, learner: ConPET) -> None:
    relation = toy_stream(1, 2, 8, 2, 4, kind=Kind.RELATION)[0].test[0]
    spans = {
        name: {"start": span.start, "end": span.end} for name in ("head", "tail") if (span := getattr(relation, name))
    }
    response = server.predict([TEXTS[0], {"tokens": list(relation.tokens), **spans}])
    expected = learner.predict([TEXTS[0], relation])
    assert [one["label"] for one in response.json()["predictions"]] == [one.label for one in expected]
    assert spans["head"] != spans["tail"]
    assert isinstance(relation.head, Span)


def test_a_request_may_name_the_tasks_that_answer_and_ask_why(server: Served, learner: ConPET) -> None:
    first, second = stream()[:2]
    (answer,) = server.predict(first.train[0].text, tasks=[second.name], explain=True).json()["predictions"]
    assert answer["task"] == second.name
    expected = learner.predict([first.train[0].text], tasks=[second.name], explain=True)[0].to_json()
    assert close(answer, expected)
    assert answer["explanation"]["nearest"][0]["example"]["label"] == answer["explanation"]["nearest"][0]["label"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [
        ({}, 422, "invalid-request", "is missing"),
        ({"inputs": []}, 422, "invalid-request", 'must have at least 1 item"'),
        ({"input": "a"}, 422, "invalid-request", "unknown field"),
        ({"inputs": [3]}, 422, "invalid-request", '"/inputs/0"'),
        (
            {"inputs": ["a", {"tokens": ["a"], "head": {"start": 0, "end": 1}}]},
            422,
            "invalid-request",
            "/inputs/1/tail",
        ),
        ({"inputs": "a", "top": 1}, 422, "invalid-request", '"/top"'),
        ({"inputs": "a", "top_n": 0}, 422, "invalid-request", '"/top_n"'),
        ({"inputs": ["a", " "]}, 422, "invalid-inputs", '"/inputs/1", "detail": "empty text"'),
        ({"inputs": " "}, 422, "invalid-inputs", '"/inputs", "detail": "empty text"'),
        ({"inputs": {"tokens": ["a"], "mention": {"start": 0, "end": 1}}}, 422, "invalid-inputs", '"/inputs",'),
        (
            {"inputs": {"tokens": ["a"], "mention": {"start": 0, "end": 9}}},
            422,
            "invalid-inputs",
            "outside the 1 tokens",
        ),
        ({"inputs": {"tokens": ["a"], "mention": {"start": 0, "end": 1}}}, 422, "invalid-inputs", "kind typing"),
        ({"inputs": ["a"] * 1025}, 422, "too-many-inputs", "at most 1,024"),
        ({"inputs": ["a"] * 101, "top_n": 1000}, 422, "too-many-candidates", "at most 100,000"),
        ({"inputs": "a" * 20_001}, 422, "invalid-inputs", "at most 20,000"),
        (
            {"inputs": {"tokens": ["a"] * 2_001, "mention": {"start": 0, "end": 1}}},
            422,
            "invalid-inputs",
            "2,001 words",
        ),
        ({"inputs": "a", "tasks": ["text-7"]}, 422, "unknown-task", "did you mean"),
        ({"inputs": "a", "tasks": []}, 422, "invalid-request", '"/tasks"'),
        ({"inputs": "a", "min_generation": 99}, 409, "no-such-generation", "has not reached"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_where(
    server: Served, body: dict[str, Any], status: int, kind: str, said: str
) -> None:
    response = server.client.post("/v1/predict", json=body)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert problem["type"] == f"urn:conpet:problem:{kind}"
    assert said in response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == problem["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "content", "media_type", "status"),
    [
        ("POST", "/v1/predict", b"{", "application/json", 400),
        ("POST", "/v1/predict", b'{"inputs": "\xff"}', "application/json", 400),
        ("POST", "/v1/predict", b'{"inputs": "\\ud800"}', "application/json", 400),
        ("POST", "/v1/predict", b"[" * 100_000, "application/json", 400),
        ("POST", "/v1/predict", b'{"inputs": "a"}', "text/plain", 415),
        ("GET", "/v1/predict", b"", "", 405),
        ("GET", "/v2", b"", "", 404),
        ("GET", "/v1/labels?task=none", b"", "", 404),
    ],
)
def test_every_error_is_a_problem_with_the_request_id(
    server: Served, method: str, path: str, content: bytes, media_type: str, status: int
) -> None:
    headers = {"content-type": media_type, "x-request-id": "mine-1"}
    response = server.client.request(method, path, content=content, headers=headers)
    assert response.status_code == status
    assert response.json() == response.json() | {"status": status, "request_id": "mine-1"}
    assert {"type", "title", "detail"} <= response.json().keys()


def test_a_timeout_is_a_number_above_0(server: Served) -> None:
    assert server.predict("a", {"X-Request-Timeout": "20"}).status_code == 200
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        assert server.predict("a", {"X-Request-Timeout": wrong}).status_code == 422
    late = server.predict(["a"] * 500, {"X-Request-Timeout": "0.0001"})
    assert (late.status_code, late.json()["type"]) == (504, "urn:conpet:problem:timeout")


def test_tasks_labels_and_versions_are_those_that_answer(server: Served, learner: ConPET) -> None:
    generation = learner.store.generation()
    tasks = server.client.get("/v1/tasks").json()
    assert tasks["generation"] == generation
    assert [(task["name"], task["version"], task["labels"]) for task in tasks["tasks"]] == [
        (task.name, task.active.number, len(task.active.labels)) for task in learner.tasks
    ]
    labels = server.client.get("/v1/labels").json()["labels"]
    assert {row["label"]: row["task"] for row in labels} == learner.owners
    name = learner.tasks[0].name
    assert {row["task"] for row in server.client.get("/v1/labels", params={"task": name}).json()["labels"]} == {name}
    (version,) = server.client.get("/v1/versions", params={"task": name}).json()["versions"]
    assert (version["version"], version["active"]) == (1, True)
    assert version["labels"] == list(learner.tasks[0].active.labels)


def test_a_response_does_not_wait_for_acknowledgements(server: Served) -> None:
    """Without TCP_NODELAY, each takes the 40 ms that a client may delay an acknowledgement."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        server.client.get("/version")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03


def test_an_answer_below_the_least_score_is_rejected(server: Served, learner: ConPET) -> None:
    (answer,) = server.predict(TEXTS[0], min_score=1.0).json()["predictions"]
    (expected,) = learner.predict(TEXTS[:1], min_score=1.0)
    assert close(answer, expected.to_json())
    assert (answer["label"], answer["rejected"]) == (None, expected.rejected)


def test_an_id_is_any_json_value_and_comes_back(server: Served) -> None:
    for identifier in (7, [1, "a"], {"row": 2}, False):
        (answer,) = server.predict({"text": TEXTS[0], "id": identifier}).json()["predictions"]
        assert answer["id"] == identifier


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_numbers_that_json_does_not_have_are_refused(server: Served, number: str) -> None:
    for body in (f'{{"inputs": {{"text": "a", "id": [{number}]}}}}', f'{{"inputs": "a", "min_score": {number}}}'):
        headers = {"content-type": "application/json"}
        response = server.client.post("/v1/predict", content=body.encode(), headers=headers)
        assert response.status_code == 422
        assert "finite" in response.text


@pytest.mark.parametrize(
    ("method", "address", "said"),
    [
        ("GET", "/v1/cost?since=a", "it takes none"),
        ("GET", "/v1/labels?tasks=a", "unknown parameter (did you mean 'task'?)"),
        ("POST", "/v1/predict?top_n=5", "it takes none"),
        ("POST", "/v1/learn?name=a&extned=true", "unknown parameter (did you mean 'extend'?)"),
        ("DELETE", "/v1/tasks/a?gat=false", "it takes evaluate, gate"),
    ],
)
def test_parameters_of_the_address_that_would_have_no_effect_are_refused(
    server: Served, method: str, address: str, said: str
) -> None:
    response = server.client.request(method, address, json={"inputs": "a"} if method == "POST" else None)
    assert (response.status_code, response.json()["type"]) == (422, "urn:conpet:problem:unknown-parameter")
    assert said in response.text


def test_a_wrong_method_or_address_is_told_which_there_are(server: Served) -> None:
    for path, allowed in (("/v1/predict", "POST"), ("/v1/candidates/1", "DELETE, GET"), ("/healthz", "GET, HEAD")):
        refused = server.client.put(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert allowed in refused.json()["detail"]
    assert "/openapi.json" in server.client.get("/v1").json()["detail"]
    for path in ("/healthz", "/readyz", "/version"):  # load balancers ask so
        asked = server.client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")


def test_inputs_that_do_not_fit_into_the_backbone_are_named(server: Served) -> None:
    long = {"tokens": ["word"] * 600, "head": {"start": 0, "end": 300}, "tail": {"start": 300, "end": 600}}
    response = server.predict([TEXTS[0], long])
    assert (response.status_code, response.json()["type"]) == (422, "urn:conpet:problem:invalid-inputs")
    (error,) = response.json()["errors"]
    assert error["pointer"] == "/inputs/1"
    assert "raise backbone.max_tokens" in error["detail"]


def test_metrics_count_requests_batches_and_answers(server: Served) -> None:
    def metrics() -> str:
        return server.client.get("/metrics").text

    def value(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def settled() -> str:
        """Return the metrics when nothing changes any more: a batch is counted just after its answers are sent."""
        text = metrics()

        def quiet() -> bool:
            nonlocal text
            former, text = text, metrics()
            return value(former, "conpet_batch_inputs_sum") == value(text, "conpet_batch_inputs_sum")

        wait_for(lambda: all(quiet() for _ in range(20)))
        return text

    before = settled()
    rules = (Path(__file__).parents[2] / "deploy/prometheus-rules.yml").read_text(encoding="utf-8")
    for name, label in re.findall(r"increase\((\w+)\{(\w+=\"\w+\")\}", rules):
        assert re.search(rf"{name}{{[^}}]*{label}[^}}]*}} 0.0", before), name  # it exists before the first failure
    task = server.predict(TEXTS[:4]).json()["predictions"][0]["task"]
    batches = value(before, "conpet_batch_inputs_sum")
    wait_for(lambda: value(metrics(), "conpet_batch_inputs_sum") > batches)  # counted just after the answer
    after = settled()
    grown = {
        name: value(after, name) - value(before, name)
        for name in (
            'conpet_requests_total{method="POST",route="/v1/predict",status="200"}',
            "conpet_batch_inputs_sum",
            "conpet_answers_total",
            "conpet_request_seconds_count",
        )
    }
    assert grown['conpet_requests_total{method="POST",route="/v1/predict",status="200"}'] == 1
    assert grown["conpet_batch_inputs_sum"] == grown["conpet_answers_total"] == 4
    assert f'conpet_answers_total{{task="{task}"}}' in after
    assert value(after, "conpet_generation") == server.predict("a").json()["generation"]
    assert 'conpet_cache_lookups_total{result="miss"}' in after


def test_the_description_of_the_api_is_complete(server: Served) -> None:
    document = server.client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/tasks", "/v1/labels", "/v1/versions", "/healthz", "/readyz", "/metrics"} <= set(
        document["paths"]
    )
    predict = document["paths"]["/v1/predict"]["post"]
    assert {"400", "401", "403", "413", "415", "422", "429", "500", "503", "504"} <= predict["responses"].keys()
    for example in predict["requestBody"]["content"]["application/json"]["examples"].values():
        answered = server.client.post("/v1/predict", json=example["value"] | {"tasks": None})
        assert answered.status_code == 200
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for responses in (one["responses"] for one in methods.values()):
            (content,) = responses.get("200", responses.get("202"))["content"].values()
            reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            assert "example" in content or "examples" in schemas[reference], path
    names = set(schemas)
    text = server.client.get("/openapi.json").text
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} <= names


def test_a_workspace_without_tasks_says_so(tmp_path: Path) -> None:
    with served(workspace(tmp_path).path) as empty:
        response = empty.predict("a")
        assert (response.status_code, response.json()["type"]) == (409, "urn:conpet:problem:no-tasks")
        assert empty.client.get("/v1/tasks").json()["tasks"] == []


def test_answers_are_in_the_ledger_with_the_processor_time_of_the_server(server: Served, learner: ConPET) -> None:
    before = server.client.get("/v1/cost").json()
    assert server.predict(TEXTS).status_code == 200
    after = server.client.get("/v1/cost").json()
    assert after["answers"] == before["answers"] + len(TEXTS)
    served_answers = [one for one in learner.store.ledger.entries() if one.source is CostSource.SERVER]
    assert sum(sum(one.tasks.values()) for one in served_answers) == sum(one.examples for one in served_answers) > 0
    assert all(one.generation == learner.store.generation() for one in served_answers)
    assert sum(one.resources.cpu_seconds for one in served_answers) > 0
    assert after["versions"][-1]["answers"] >= len(TEXTS)


def test_answers_count_in_the_costs_before_their_batch_does(server: Served) -> None:
    def answers() -> int:
        return int(server.client.get("/v1/cost").json()["answers"])

    given = [Prediction.from_json(one) for one in server.predict(TEXTS[:3]).json()["predictions"]]
    before = max(answers() for _ in range(2))  # by the second time, the batch is counted
    server.context.serving.answered(given)
    assert answers() == before + len(given)
