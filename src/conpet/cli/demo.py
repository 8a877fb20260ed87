"""`conpet demo`: learn the bundled data, task after task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from conpet.cli.changes import consolidate_learned, teach
from conpet.cli.console import line, messages, output
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
) -> None:
    """Run a demo: a real language model learns the intents of ten departments, one task after another.

    At the end it consolidates the workspace, which takes longer than all tasks together.

    The data is CLINC150: 150 intents of 10 domains, 20 training examples each.
    An interrupted demo resumes; a finished demo shows its results again.
    """
    if write_data is not None:
        from conpet.demo.stream import write_demo_stream

        line(f"{write_demo_stream(write_data)}: ten task folders; learn them with: conpet learn WORKSPACE {write_data}")
        return
    from conpet.demo.run import Demo

    consolidate = None if no_consolidate else consolidate_learned
    say = partial(line, console=messages())
    Demo(workspace, output(), say, teach, consolidate).run(backbone, fresh=fresh)
