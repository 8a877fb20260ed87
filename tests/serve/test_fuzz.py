"""No request, however strange, is answered with an error of the server, or without its id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.serve import Served, served
from tests.helpers.workspaces import workspace

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SPANS = st.fixed_dictionaries({"start": st.integers(-2, 9) | ANYTHING, "end": st.integers(-2, 9)})
INPUTS = st.one_of(
    st.text(max_size=30),
    st.fixed_dictionaries({"text": st.text(max_size=30) | ANYTHING}, optional={"id": st.text(max_size=5)}),
    st.fixed_dictionaries({"tokens": st.lists(st.text(max_size=5), max_size=5)}, optional={"mention": SPANS}),
    st.fixed_dictionaries(
        {"tokens": st.lists(st.text(max_size=5), max_size=5), "head": SPANS}, optional={"tail": SPANS}
    ),
    ANYTHING,
)
BODIES = st.fixed_dictionaries(
    {"inputs": INPUTS | st.lists(INPUTS, max_size=4)},
    optional={
        "top_n": st.integers() | ANYTHING,
        "tasks": st.lists(st.sampled_from(["text-0", "none"])) | ANYTHING,
        "explain": st.booleans() | ANYTHING,
        "min_generation": st.integers() | ANYTHING,
    },
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(workspace(tmp_path_factory.mktemp("served"), 1).path) as running:
        yield running


def check(response: Any) -> None:
    assert response.status_code in {200, 400, 404, 405, 409, 413, 415, 422}
    assert response.headers["x-request-id"]
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


@settings(max_examples=100)
@given(body=BODIES | ANYTHING)
def test_any_json_is_answered_or_refused(server: Served, body: Any) -> None:
    check(server.client.post("/v1/predict", content=json.dumps(body), headers={"content-type": "application/json"}))


@settings(max_examples=50)
@given(
    body=st.binary(max_size=200),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "x-request-id", "x-request-timeout", "accept", "expect"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
        | st.sampled_from(["application/json", "gzip"]),
    ),
)
def test_any_bytes_are_refused(server: Served, body: bytes, headers: dict[str, str]) -> None:
    check(server.client.post("/v1/predict", content=body, headers=headers))


@settings(max_examples=50)
@given(task=st.text(max_size=30), path=st.text(st.characters(codec="ascii"), max_size=20))
def test_any_address_is_answered_or_refused(server: Served, task: str, path: str) -> None:
    check(server.client.get("/v1/labels", params={"task": task.encode(errors="replace")}))
    check(server.client.get("/v1/" + "".join(character for character in path if character.isprintable())))
