"""`conpet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conpet.cli.changes import teach
from conpet.cli.console import line, messages, output


def demo(
    workspace: Annotated[Path, typer.Option(metavar="DIR", help="Where to learn.")] = Path("demo-workspace"),
    backbone: Annotated[str, typer.Option(help="Backbone; minilm-l6 is several times faster.")] = "smollm2-135m",
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier demo learned there.")] = False,
    write_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Only write the demo's data as files to look at, and stop.", show_default=False
        ),
    ] = None,
) -> None:
    """Watch a real language model learn the intents of ten departments, one after another.

    The data is CLINC150: 150 intents of 10 domains, 20 training examples each.
    An interrupted demo goes on where it was; a finished one shows its results again.
    """
    if write_data is not None:
        from conpet.demo.stream import write_demo_stream

        line(f"{write_demo_stream(write_data)}: ten task folders; learn them with: conpet learn WORKSPACE {write_data}")
        return
    from conpet.demo.run import Demo

    Demo(workspace, output(), say=lambda said: line(said, messages()), teach=teach).run(backbone, fresh=fresh)
