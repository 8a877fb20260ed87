"""`conpet backbones`: the embedded models, and any other model in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from conpet.cli.console import line, messages, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson

app = App(help="List, fetch and inspect backbones.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="An embedded model.", show_default=False)]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the embedded models. Any other model is named by its folder or hub id."""
    from conpet.backbone.catalog import EMBEDDED

    rows = [_embedded(name) for name in EMBEDDED]
    if as_json:
        print_json(rows)
        return
    from conpet.report import text

    for row in rows:
        state = f"installed ({text.size(row['bytes'])})" if row["installed"] else "not installed"
        line(f"{row['name']}: {row['description']}")
        line(
            f"    {text.short_count(row['parameters'])} parameters, {row['layers']} layers, {row['licence']}, "
            f"download {text.size(row['download_bytes'])}, {state}"
        )
    line(
        "Also accepted: tiny-random (for tests), a folder in Hugging Face format, or a hub id (owner/model).",
        style="dim",
    )


@app.command()
def pull(
    name: Name,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every file even if the model is already installed.")
    ] = False,
) -> None:
    """Download, check and convert an embedded model, unless it is already installed."""
    from conpet.backbone.embedded import ensure

    folder = ensure(name, progress=lambda message: line(message, messages()), verify=verify)
    line(str(folder))


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME_OR_FOLDER", help="An embedded model, or a folder.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Show the details of an embedded model or of a model in a folder."""
    from conpet.backbone.catalog import EMBEDDED

    details = _embedded(name) if name in EMBEDDED else _of_folder(name)
    if as_json:
        print_json(details)
        return
    for key, value in details.items():
        for name_shown, shown in _lines(key.replace("_", " "), value):
            line(f"{name_shown:<16}{shown}")


def _lines(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the lines, name and text, that show one detail."""
    if isinstance(value, dict):
        return [(name if not index else "", f"{key}  {entry}") for index, (key, entry) in enumerate(value.items())]
    return [(name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value)]


def _embedded(name: str) -> dict[str, Any]:
    from conpet.backbone.catalog import embedded_model
    from conpet.backbone.embedded import status

    model, installation = embedded_model(name), status(name)
    return {
        "name": model.name,
        "description": model.description,
        "architecture": model.architecture,
        "layers": model.layers,
        "hidden_size": model.hidden_size,
        "parameters": model.parameters,
        "context": model.context,
        "licence": model.licence,
        "wheels": {wheel.requirement: wheel.sha256 for wheel in model.wheels},
        "download_bytes": model.download_bytes,
        "installed": installation.present,
        "bytes": installation.bytes,
        "path": str(installation.path),
    }


def _of_folder(name: str) -> dict[str, Any]:
    from conpet.backbone.catalog import EMBEDDED
    from conpet.backbone.fingerprint import Fingerprint
    from conpet.errors import UnknownNameError
    from conpet.home import conpet_home

    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise UnknownNameError(
            f"no backbone {name!r}: it is neither an embedded model ({', '.join(EMBEDDED)}) nor a folder with a "
            "config.json (`conpet init --backbone` downloads a hub id)"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "name": name,
        "architecture": ", ".join(config.get("architectures") or ["unknown"]),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "parameters": _parameters(folder),
        "context": config.get("max_position_embeddings"),
        "installed": True,
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "path": str(folder.resolve()),
        "fingerprint": Fingerprint.of_folder(folder, conpet_home() / "hashes.json").digest,
    }


def _parameters(folder: Path) -> int | None:
    """Count the parameters from the headers of the safetensors files; None if there are no such files."""
    from math import prod

    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            total += sum(prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
    return total if files else None
