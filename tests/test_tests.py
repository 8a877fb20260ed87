"""Every test asserts something that can fail."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent
ASSERTING = ("assert", "check", "require", "raises", "warns", "fail", "expect")
"""Words in the names of what asserts: pytest's and torch's functions, and those of `conpet.testing`."""


class Place(NamedTuple):
    place: str
    function: ast.FunctionDef


FUNCTIONS = [
    Place(f"{path.relative_to(FOLDER).as_posix()}::{node.name}", node)
    for path in sorted(FOLDER.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef)
]
TESTS = [one for one in FUNCTIONS if one.function.name.startswith("test_")]


def called(node: ast.Call) -> str:
    """Return the last name of what is called; of an entry of a table, the table's."""
    function = node.func
    while isinstance(function, ast.Subscript):
        function = function.value
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def asserts(node: ast.AST) -> bool:
    """Tell whether a node is an assertion, or asks a library or another process to make one."""
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.Assert)
    checked = any(word.arg == "check" and ast.unparse(word.value) == "True" for word in node.keywords)
    return checked or any(word in called(node).lower() for word in ASSERTING)


def helpers_that_assert() -> set[str]:
    """Return the names of the tests' functions that assert, by themselves or by another one."""
    helpers = [(one.function.name, list(ast.walk(one.function))) for one in FUNCTIONS if one not in TESTS]
    found: set[str] = set()
    while more := {
        name
        for name, nodes in helpers
        if name not in found
        and any(asserts(node) or (isinstance(node, ast.Call) and called(node) in found) for node in nodes)
    }:
        found |= more
    return found


def useless(assertion: ast.Assert) -> bool:
    """Tell whether an assertion holds whatever the code under test does."""
    test = assertion.test
    if isinstance(test, ast.Constant | ast.Tuple | ast.JoinedStr):
        return True
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    left, right = ast.unparse(test.left), ast.unparse(test.comparators[0])
    sizes = ((ast.GtE, left, right), (ast.LtE, right, left))
    return left == right or any(
        isinstance(test.ops[0], operator) and one.startswith("len(") and other == "0" for operator, one, other in sizes
    )


def unread(function: ast.FunctionDef) -> Iterator[str]:
    """Yield the names of what a function puts something into, or assigns, and never reads."""
    nodes = list(ast.walk(function))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    read = Counter(node.id for node in names if isinstance(node.ctx, ast.Load))
    filled = Counter(
        node.func.value.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
        if node.func.attr in ("append", "extend", "add")
    )
    elsewhere = set(chain.from_iterable(node.names for node in nodes if isinstance(node, ast.Nonlocal | ast.Global)))
    attributes = {
        target.id
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        for target in ast.walk(statement)
        if isinstance(target, ast.Name) and isinstance(statement, ast.Assign | ast.AnnAssign)
    }
    for name in {node.id for node in names if isinstance(node.ctx, ast.Store)} - elsewhere - attributes:
        if read[name] == filled[name] and not name.startswith("_"):
            yield name


def test_every_test_asserts_something() -> None:
    helpers = helpers_that_assert()
    silent = [
        place
        for place, function in TESTS
        if not any(
            asserts(node) or (isinstance(node, ast.Call) and called(node) in helpers) for node in ast.walk(function)
        )
    ]
    assert silent == []


def test_no_assertion_holds_whatever_happens() -> None:
    found = [
        f"{place}: {ast.unparse(node)}"
        for place, function in FUNCTIONS
        for node in ast.walk(function)
        if isinstance(node, ast.Assert) and useless(node)
    ]
    assert found == []


def test_no_test_gathers_what_it_never_looks_at() -> None:
    assert [f"{place}: {name}" for place, function in TESTS for name in unread(function)] == []


@pytest.mark.parametrize(
    ("body", "silent", "idle", "forgotten"),
    [
        ("run()", True, False, []),
        ("assert run() == 3", False, False, []),
        ("with pytest.raises(ValueError):\n  run()", False, False, []),
        ("subprocess.run([], check=True)", False, False, []),
        ("CHECKS[name](1)", False, False, []),
        ("x = run()\nassert x == x", False, True, []),
        ("x = run()\nassert len(x) >= 0", False, True, []),
        ("assert (run(), 'a message')", False, True, []),
        ("seen = []\nrun(seen.append)\nassert run()", False, False, []),
        ("seen = []\ndef go(x):\n  seen.append(x)\nassert run(go)", False, False, ["seen"]),
    ],
)
def test_what_says_nothing_is_found(body: str, silent: bool, idle: bool, forgotten: list[str]) -> None:
    function = ast.parse("def test_it():\n" + "\n".join(f"  {line}" for line in body.splitlines())).body[0]
    assert isinstance(function, ast.FunctionDef)
    nodes = list(ast.walk(function))
    assert any(map(asserts, nodes)) == (not silent)
    assert any(isinstance(node, ast.Assert) and useless(node) for node in nodes) == idle
    assert list(unread(function)) == forgotten
