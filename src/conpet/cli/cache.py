"""`conpet cache`: the cached states of the frozen layers, shared by all workspaces."""

from __future__ import annotations

import typer

from conpet.cli.console import line, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson

app = App(help="Show or clear the cache of prefix states.", invoke_without_command=True)


@app.callback()
def _cache(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        show(as_json)


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show the size and location of the cache."""
    from conpet.report import text
    from conpet.state.live import state_cache

    with state_cache() as cache:
        exists = cache.path.exists()  # reading the counts would create the file
        entries, used = (cache.entries, cache.bytes_used) if exists else (0, 0)
    if as_json:
        print_json({"path": str(cache.path), "entries": entries, "bytes": used, "limit_bytes": cache.limit_bytes})
    else:
        line(f"{cache.path}: the states of {entries:,} examples, {text.size(used)} of {text.size(cache.limit_bytes)}")


@app.command()
def clear() -> None:
    """Delete every cached state. States are computed again when needed."""
    from conpet.state.live import state_cache

    cache = state_cache()
    if cache.path.exists():
        with cache:
            cache.clear()
    line(f"{cache.path}: empty")
