"""Commands that ask a server (`--server URL`) instead of opening a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import INTERRUPTED, line, messages, stages

if TYPE_CHECKING:
    from conpet.client import Client
    from conpet.jobs.records import Job

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
        raise typer.BadParameter(f"with --server, leave out {names}: the server decides", param_hint="--server")
    from conpet.client import Client

    return Client(server, key)


def learn_remotely(
    client: Client,
    source: Path,
    *,
    name: str | None,
    template: str | None,
    extend: bool,
    batch: int,
    seed: int | None,
    all_rows: bool,
    evaluate: bool,
) -> None:
    """Send a task or a stream to a server, follow the job, and print what was learned."""
    with client:
        if source.is_dir():
            job = _send_folder(client, source, name, template, extend, batch, seed, all_rows, evaluate)
        else:
            job = client.learn_file(
                source, name=name, template=template, extend=extend, seed=seed, all_rows=all_rows, evaluate=evaluate
            )
        line(f"job {job.id}: accepted", messages(), "dim")
        _follow(client, job)


def _send_folder(
    client: Client,
    source: Path,
    name: str | None,
    template: str | None,
    extend: bool,
    batch: int,
    seed: int | None,
    all_rows: bool,
    evaluate: bool,
) -> Job:
    from conpet.data import read_examples, read_stream, read_task

    if extend:
        return client.extend(read_examples(source), evaluate=evaluate)
    if name is None and template is None:
        tasks = list(read_stream(source, all_rows=True))
    else:
        tasks = [read_task(source, name=name, template=template, all_rows=True)]
    return client.learn(tasks, all_rows=all_rows, seed=seed, batch=batch, evaluate=evaluate)


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
