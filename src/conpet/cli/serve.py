"""`conpet serve`: answer over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from conpet.cli.options import BackboneMoved, Device, KeysFile, LogFolder, WorkspacePath, assignments
from conpet.errors import ConfigError

_NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client", "structlog", "babel")


def serve(
    workspace: WorkspacePath,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Number of processes that answer.", show_default="1")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of settings (also CONPET_SERVE_CONFIG).", show_default=False),
    ] = None,
    keys_file: KeysFile = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without API keys: anyone may do everything.")
    ] = False,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write the inputs into the log.")] = False,
    log_predictions: Annotated[
        str | None,
        typer.Option(
            metavar="off|hash|text",
            help="Record predictions: not, with a keyed hash of the input, or with the input (`conpet audit log`).",
            show_default="as in the workspace",
        ),
    ] = None,
    log_to: LogFolder = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any serve setting; repeatable. See the guide.", show_default=False
        ),
    ] = None,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Answer over HTTP from a workspace, also while it learns.

    Settings come from flags, then from environment variables (CONPET_SERVE_PORT sets the port), then from a file.
    Logs go to standard error, one JSON object on each line. SIGTERM or Ctrl-C stops after finishing what was accepted.
    """
    require_server("conpet serve")
    from conpet.serve.run import run
    from conpet.serve.settings import ServeSettings

    flags = {
        "workspace": workspace,
        "host": host,
        "port": port,
        "workers": workers,
        "keys_file": keys_file,
        "insecure": insecure or None,
        "log_texts": log_texts or None,
        "log_predictions": log_predictions,
        "log_to": log_to,
        "backbone": backbone,
        "device": device,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    more = assignments(settings or [])
    if twice := given.keys() & more.keys():
        raise typer.BadParameter(f"{min(twice)} is given twice, also by its own option", param_hint="--set")
    run(ServeSettings.load({**given, **more}, config))


def require_server(command: str) -> None:
    """Refuse a command that needs the extra `serve`, if it is not installed.

    Raises:
        ConfigError: Packages are missing.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"{command} needs {', '.join(missing)}, which is not installed: pip install 'conpet[serve]'")
