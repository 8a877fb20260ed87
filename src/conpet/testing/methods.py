"""The contract of methods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from conpet.api import ConPET
from conpet.context import TrainContext
from conpet.cost import CostLedger
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.methods import METHODS
from conpet.methods.base import Method, TaskData
from conpet.replay.memory import new_examples
from conpet.replay.memory_writer import past_examples
from conpet.state.reading import new_task_state
from conpet.state.slots import MODULE
from conpet.testing.checks import (
    TOLERANCE,
    Trial,
    ask,
    different,
    digest_of_weights,
    files,
    live_of,
    require,
    require_same,
)
from conpet.testing.registration import registered, registrations
from conpet.testing.toy import tiny_settings, toy_stream


def check_method_contract(method: str | type[Method] | Method, **settings: Any) -> None:
    """Check a method on `tiny-random`, in a few seconds.

    Args:
        method: Its registered name, its class, or an instance.
        settings: Settings that override those of `tiny_settings`.

    Raises:
        ContractError: It violates the contract; the message says how.
    """
    with registered("method", method) as name:
        run_method_checks(tiny_settings(**{**settings, "method": name}))


def run_method_checks(settings: Mapping[str, Any]) -> None:
    """Run all checks of methods in workspaces with these settings."""
    for check in METHOD_CHECKS.values():
        with tempfile.TemporaryDirectory() as folder:
            check(Trial(Path(folder), settings))


@contextmanager
def checked_with(kind: str, component: Any, method: str, section: str) -> Iterator[Trial]:
    """Check the contract of methods with a component in use, then yield a trial for the component's own checks.

    Args:
        kind: As in `conpet.register`.
        component: Its name, its class, or an instance.
        method: A method that uses it.
        section: The section of the settings that names it.
    """
    with registered(kind, component) as name:
        settings = tiny_settings(method=method, **{section: name})
        run_method_checks(settings)
        with tempfile.TemporaryDirectory() as folder:
            yield Trial(Path(folder), settings)


def _changes_nothing(trial: Trial) -> None:
    """Learning, predicting and evaluating change neither the backbone nor the inputs."""
    stream = toy_stream(2, 2, 4, 1, 2)
    before = [task.digest for task in stream]
    workspace = trial.workspace()
    weights = digest_of_weights(workspace)
    for task in stream:
        workspace.learn(task, gate=False)
    inputs = list(stream[0].test)
    ask(workspace, inputs)
    workspace.evaluate()
    require(digest_of_weights(workspace) == weights, "the backbone's weights changed")
    require([task.digest for task in stream] == before, "learning changed a task")
    require(inputs == list(stream[0].test), "predicting changed the inputs")


def _same_seed_same_bytes(trial: Trial) -> None:
    """The same tasks in the same order with the same seed give the same files."""
    stream = toy_stream(2, 2, 4, 1, 0)
    first, second = (files(trial.taught(stream, name)) for name in ("first", "second"))
    require(first == second, f"after learning twice with the same seed, these files differ: {different(first, second)}")


def _reloaded_elsewhere(*trials: Trial) -> None:
    """Another process that opens the workspaces gives the same answers; several trials share the process."""
    stream = toy_stream(2, 2, 4, 1, 2)
    workspaces = [trial.taught(stream) for trial in trials]
    texts = [example.text for task in stream for example in task.test]
    arguments = json.dumps([[str(workspace.path) for workspace in workspaces], texts, registrations()])
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", _ASK_ELSEWHERE, arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    errors = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
    require(
        done.returncode == 0,
        f"a new process cannot open the workspace: {errors[-1]}\nA new process must be able to import your classes "
        "from their modules, without anything this process has done before",
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    for workspace, elsewhere in zip(workspaces, answers, strict=True):
        where = f"in another process (method {workspace.settings.method.name})"
        require_same(ask(workspace, texts), elsewhere, where)


_ASK_ELSEWHERE = """
import json, sys
import conpet
from conpet.testing import ask
paths, texts, registrations = json.loads(sys.argv[1])
for registration in registrations:
    conpet.register(*registration)
try:
    sys.stdout.write(json.dumps([ask(conpet.ConPET.open(path), texts) for path in paths]) + chr(10))
except conpet.ConpetError as error:
    sys.exit(" ".join(str(error).split()))
"""


def _works_with_little(trial: Trial) -> None:
    """A task of two labels with one example each and no held-out examples can be learned, and so can a second one."""
    stream = toy_stream(2, 2, 1, 0, 0)
    workspace = trial.workspace()
    for number, task in enumerate(stream, start=1):
        report = workspace.learn(task, gate=False)
        require(report.tasks_seen == number, "a task with one example per label was not learned")
        answers = workspace.predict([task.train[0]], top_n=11)
        require(answers[0].label in workspace.labels, "an answer is not a label of the workspace")


def _keeps_older_modules(trial: Trial) -> None:
    """The stored modules of older tasks do not change."""
    first, second = toy_stream(2, 2, 4, 1, 0)
    workspace = trial.taught([first])
    before = files(workspace, slots=(MODULE,))
    workspace.learn(second, evaluate=False)
    after = files(workspace, slots=(MODULE,))
    changed = [name for name, content in before.items() if after.get(name) != content]
    require(not changed, f"learning another task changed stored modules of an older one: {changed}")


def _scores_are_probabilities(trial: Trial) -> None:
    """Scores over all labels of an input's kind sum to 1, and labels of another kind are never answers."""
    streams = {kind: toy_stream(1 + (kind is Kind.TEXT), 2, 4, 1, 2, kind=kind) for kind in Kind}
    first, *others = (task for stream in streams.values() for task in stream)
    workspace = trial.taught([*others, first])  # another kind first
    live = live_of(workspace)
    method, state = live.method, live.state
    for kind, stream in streams.items():
        examples = [example for task in stream for example in task.test]
        own = {label for task in stream for label in task.labels}
        require(all(set(row) == own for row in ask(workspace, examples)), f"a {kind} input got labels of another kind")
        scores = method.score(state, method.encode(state, examples, kind, keep=False), kind).classes
        other = torch.tensor([label not in own for label in state.classes])
        require(bool((scores[:, other] == -torch.inf).all()), f"a label of another kind is possible for {kind} inputs")
        sums = scores.exp().sum(dim=1)
        require(bool(((sums - 1).abs() < TOLERANCE).all()), f"scores sum to {sums.tolist()} and not to 1")


def _honours_templates(trial: Trial) -> None:
    """Every task is trained and predicted with its own template; `latent_only` allows only one."""
    own = "{text}. What they want is"
    first, second = toy_stream(2, 2, 4, 1, 2)
    workspace = trial.workspace()
    backbone = workspace.backbone
    if workspace.settings.replay.latent_only:
        first = replace(first, template=own)
    templates = {first.template, own}
    with patch.object(backbone, "states", wraps=backbone.states) as spied:
        for task in (first, replace(second, template=own)):
            spied.reset_mock()
            workspace.learn(task, evaluate=False, gate=False)
            read = {_template(call) for call in spied.call_args_list if tuple(call.args[0]) == task.train}
            require(task.template in read, f"task {task.name!r} was not trained with {task.template!r}")
        spied.reset_mock()
        ask(workspace, second.test)
        used = {_template(call) for call in spied.call_args_list}
        require(used == templates, f"inputs were encoded with {used}, but the tasks have {templates}")


def _template(call: Any) -> str | None:
    template: str | None = call.args[1] if len(call.args) > 1 else call.kwargs.get("template")
    return template


def _batches_do_not_matter(trial: Trial) -> None:
    """An input gets the same scores alone, in another order, and together with longer inputs."""
    stream = toy_stream(2, 2, 4, 1, 2)
    path = trial.taught(stream).path
    texts = [example.text for task in stream for example in task.test]
    batched = ask(ConPET.open(path), texts)
    backwards = ask(ConPET.open(path), texts[::-1])[::-1]
    padded = ask(ConPET.open(path), [*texts, "a very long input " * 5])[:-1]
    fresh = ConPET.open(path)
    alone = [ask(fresh, [text])[0] for text in texts]
    for other, where in ((backwards, "in another order"), (padded, "together with a longer input"), (alone, "alone")):
        require_same(batched, other, where)


def _learning_is_no_change(trial: Trial) -> None:
    """Learning does not change the state it starts from; only a stored update takes effect."""
    first, second = toy_stream(2, 2, 4, 1, 2)
    workspace = trial.taught([first])
    live = live_of(workspace)
    method, state = live.method, live.state
    inputs = method.encode(state, first.test, first.kind, keep=False)
    before = method.score(state, inputs, first.kind).classes
    context = TrainContext(past_examples(workspace.tasks), CostLedger(), seed=0)
    added = new_task_state(second, live.snapshot)
    data = TaskData.of(added, workspace.settings, new_examples(second), method.backbone)
    method.learn_task(state, data, context)
    require(state.labels == first.labels, "learning changed the labels of a state")
    after = method.score(state, inputs, first.kind).classes
    require(torch.equal(before, after), "learning changed the state it started from")


def _consolidates_if_it_says_so(trial: Trial) -> None:
    """A method that `consolidates` answers over the new backbone, alike when reopened; another one is refused."""
    workspace = trial.workspace()
    method: type[Method] = METHODS[workspace.settings.method.name]
    if not method.consolidates or workspace.settings.replay.latent_only:
        require(_refuses(workspace), "the workspace was consolidated although its method does not support it")
        return
    stream = toy_stream(2, 2, 4, 1, 1)
    for task in stream:
        workspace.learn(task, evaluate=False, gate=False)
    texts, former = [example.text for task in stream for example in task.test], digest_of_weights(workspace)
    before = ask(workspace, texts)
    replaced = workspace.consolidate(bound=100, settings={"epochs": 2}, evaluate=False, gate=False).replaced
    require(digest_of_weights(workspace) != former, "a consolidation left the backbone unchanged")
    require_same(ask(workspace, texts), ask(ConPET.open(workspace.path), texts), "when a consolidation is reopened")
    workspace.restore(replaced, evaluate=False)
    require_same(before, ask(workspace, texts), "after a consolidation is undone")


def _refuses(workspace: ConPET) -> bool:
    try:
        workspace.consolidate()
    except ConfigError:
        return True
    return False


METHOD_CHECKS: Mapping[str, Callable[..., None]] = {
    check.__name__.removeprefix("_"): check
    for check in (
        _changes_nothing,
        _same_seed_same_bytes,
        _reloaded_elsewhere,
        _works_with_little,
        _keeps_older_modules,
        _scores_are_probabilities,
        _honours_templates,
        _batches_do_not_matter,
        _learning_is_no_change,
        _consolidates_if_it_says_so,
    )
}
"""The single checks of `check_method_contract`, for tests that name the failed check."""
