"""`conpet export-mlflow`: copy the history of a workspace to MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from conpet.cli.console import line
from conpet.cli.options import WorkspacePath
from conpet.errors import plural


def export_mlflow(
    workspace: WorkspacePath,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Address of MLflow's server or store (http://..., sqlite:///mlflow.db).",
            show_default="MLFLOW_TRACKING_URI",
        ),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Name of the experiment.", show_default="name of the workspace's folder")
    ] = None,
) -> None:
    """Copy the history to MLflow: a run for each version, with settings, results, costs and composite score.

    Versions that have a run are skipped, so it can be run after every change. No labels and no texts are copied.
    """
    from conpet.commands.mlflow_export import export_mlflow as export
    from conpet.store import Store

    done = export(Store.open(workspace), tracking_uri, experiment)
    skipped = f", {done.present:,} were there" if done.present else ""
    line(f"experiment {done.experiment}: {plural(done.added, 'run')} added{skipped}")
