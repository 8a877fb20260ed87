"""`conpet demo`: learn the bundled data, task after task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from conpet.cli.changes import consolidate_learned, teach
from conpet.cli.console import line, messages, output
from conpet.cli.serve import require_server
from conpet.config import DEFAULT_BACKBONE


def demo(
    workspace: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the workspace.")] = Path("demo-workspace"),
    backbone: Annotated[str, typer.Option(help="Backbone; smollm2-135m is a causal model.")] = DEFAULT_BACKBONE,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the workspace of an earlier demo first.")] = False,
    no_consolidate: Annotated[
        bool, typer.Option("--no-consolidate", help="Leave out the consolidation at the end.")
    ] = False,
    write_data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the demo's data to this folder and stop.", show_default=False),
    ] = None,
    write_exercise: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help='Write the files of the exercise "First day" to this folder and stop.',
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="At the end, answer some questions and serve the workspace.")
    ] = False,
    port: Annotated[int, typer.Option(metavar="N", help="Port for --serve; 0 takes a free one.")] = 8000,
) -> None:
    """Run a demo: a real language model learns the intents of ten departments, one task after another.

    At the end it consolidates the workspace, which takes longer than all tasks together.

    The data is CLINC150: 150 intents of 10 domains, 20 training examples each.
    An interrupted demo resumes; a finished demo shows its results again.
    With --serve, it prints the address to open in a browser; Ctrl-C stops the server.
    """
    if write_data is not None:
        from conpet.demo.stream import write_demo_stream

        line(f"{write_demo_stream(write_data)}: ten task folders; learn them with: conpet learn WORKSPACE {write_data}")
        return
    if write_exercise is not None:
        from conpet.demo.exercise import NEW_DEPARTMENT, SLIPPED
        from conpet.demo.exercise import write_exercise as write

        line(f"{write(write_exercise)}: {NEW_DEPARTMENT} and {SLIPPED}, for the exercise in docs/learn")
        return
    if serve:
        require_server("conpet demo --serve")
    from conpet.demo.run import Demo

    consolidate = None if no_consolidate else consolidate_learned
    say = partial(line, console=messages())
    Demo(workspace, output(), say, teach, consolidate).run(backbone, fresh=fresh)
    if serve:
        serve_demo(workspace, port)


def serve_demo(workspace: Path, port: int) -> None:
    """Answer the demo's questions and serve its workspace on loopback until Ctrl-C."""
    from conpet.api import ConPET
    from conpet.demo.exercise import answer_questions
    from conpet.serve.run import run
    from conpet.serve.settings import ServeSettings

    with ConPET.open(workspace) as opened:
        answered = answer_questions(opened)
    line("")
    if answered:
        line(f"answered and recorded {answered} questions, as users would have asked them")
    settings = ServeSettings.load({"workspace": workspace, "port": port, "log_level": "warning"})
    run(settings, lambda url: line(f"open {url}/ in a browser; Ctrl-C stops the server"))
