"""Commands that ask a server (`--server URL`) instead of opening a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import INTERRUPTED, line, messages, stages
from conpet.errors import DamagedModuleError, DataError, Problem, plural

if TYPE_CHECKING:
    from conpet.client import Client
    from conpet.data import Example
    from conpet.data.raw import ReadOptions
    from conpet.data.truncation import CutInputs
    from conpet.jobs.records import Job
    from conpet.types import OnError, Prediction

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a server (`conpet serve`) at this address; leave out WORKSPACE.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", envvar="CONPET_KEY", help="API key for the server.", show_default=False),
]


def open_client(server: str, key: str | None, **local: Any) -> Client:
    """Return a client of a server.

    Args:
        server: Its address.
        key: API key.
        local: Options that are only for workspaces, by name; none may be given.
    """
    if given := [name for name, value in local.items() if value is not None]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"not with --server: leave out {names}", param_hint="--server")
    from conpet.client import Client

    return Client(server, key)


def open_predictor(server: str, key: str | None, **local: Any) -> RemotePredictor:
    """Return what predicts at a server; arguments as in `open_client`."""
    return RemotePredictor(open_client(server, key, **local))


class RemotePredictor:
    """Predicts at a server, as a workspace does (`conpet.data.prediction_files.Predictor`).

    Args:
        client: A client of the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def predict(
        self, inputs: Sequence[str | Example], *, top_n: int, min_score: float, on_error: OnError
    ) -> list[Prediction | Problem]:
        """Predict inputs; as `ConPET.predict`."""
        answers: dict[int, Prediction | Problem] = {}
        while left := [number for number in range(len(inputs)) if number not in answers]:
            try:
                found = self._client.predict([inputs[number] for number in left], top_n=top_n, min_score=min_score)
                answers |= dict(zip(left, found, strict=True))
            except DataError as error:
                wrong = {left[problem.row - 1]: problem for problem in error.problems if problem.row is not None}
                if on_error == "fail" or not wrong:
                    raise
                answers |= wrong
            except DamagedModuleError as error:
                needing = {left[row - 1]: Problem("inputs", row, str(error)) for row in error.inputs}
                if on_error == "fail" or not needing:
                    raise
                answers |= needing
        ordered = [answers[number] for number in range(len(inputs))]
        return ordered if on_error == "report" else [one for one in ordered if not isinstance(one, Problem)]

    def check_inputs(self, inputs: Sequence[Example]) -> list[Problem]:
        """Return a problem for each malformed input; the server checks the rest when it predicts."""
        from conpet.data import check_example

        return [
            Problem("inputs", number, "; ".join(reasons), example.id)
            for number, example in enumerate(inputs, start=1)
            if (reasons := check_example(example))
        ]

    def cut_note(self, cut: CutInputs, what: str) -> str | None:
        """Return a sentence on inputs that the server has cut, or None."""
        if not cut.cut:
            return None
        longest = f"up to {plural(cut.most, 'token')} of each were not read"
        return f"{cut.cut:,} of {plural(cut.total, what)} exceed the limit of the server's workspace: {longest}"


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """What a server is to learn; the options of `conpet learn`."""

    name: str | None
    template: str | None
    extend: bool
    batch: int
    seed: int | None
    all_rows: bool
    needed_since: date | None
    evaluate: bool
    gate: bool


def learn_remotely(client: Client, source: Path, options: ReadOptions, task: RemoteTask) -> None:
    """Send a task or a stream to a server, follow the job, and print what was learned.

    Files in a format that the server takes are sent as they are; others are read here, and their rows are sent.
    """
    from conpet.client.calls import sendable_suffix
    from conpet.data.raw import ReadOptions

    with client:
        if source.is_file() and options == ReadOptions() and sendable_suffix(source):
            job = client.learn_file(
                source,
                name=task.name,
                template=task.template,
                extend=task.extend,
                seed=task.seed,
                all_rows=task.all_rows,
                needed_since=task.needed_since,
                evaluate=task.evaluate,
                gate=task.gate,
            )
        else:
            job = _send_rows(client, source, options, task)
        line(f"job {job.id}: accepted", messages(), "dim")
        _follow(client, job)


def _send_rows(client: Client, source: Path, options: ReadOptions, task: RemoteTask) -> Job:
    from conpet.data import read_examples, read_stream, read_task

    reading: dict[str, Any] = asdict(options)
    how: dict[str, Any] = {"needed_since": task.needed_since, "evaluate": task.evaluate, "gate": task.gate}
    if task.extend:
        return client.extend(read_examples(source, note=line, **reading), **how)
    if task.name is None and task.template is None:
        tasks = list(read_stream(source, all_rows=True, **reading))
    else:
        tasks = [read_task(source, name=task.name, template=task.template, all_rows=True, **reading)]
    return client.learn(tasks, all_rows=task.all_rows, seed=task.seed, batch=task.batch, **how)


def _follow(client: Client, job: Job) -> None:
    """Show the progress of a job until it ends, then print its log."""
    try:
        with stages(", ".join(job.tasks[:3]) or str(job.kind)) as progress:
            client.wait(job, progress=progress)
    except KeyboardInterrupt:
        line(f"the server goes on with job {job.id}", messages(), "yellow")
        raise typer.Exit(INTERRUPTED) from None
    for _, message in client.log(job.id):
        if not message.startswith("attempt "):
            line(message)
