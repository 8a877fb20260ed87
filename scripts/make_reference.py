"""Make the reference of commands and settings from the commands and the settings classes themselves.

python scripts/make_reference.py [--check]     # --check: fail if a page is not what the code says
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from conpet.cli.app import app
from conpet.config.describe import describe_settings

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
COMMANDS, SETTINGS = REFERENCE / "command-line.md", REFERENCE / "settings.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->"
INTRODUCTION = """# Command line

<!-- Made by `python scripts/make_reference.py` from the commands' own help. -->

`conpet COMMAND --help` prints the same on the terminal. Commands print results on the standard output and everything
else on the standard error. They exit with 0 on success, 1 on an error, 2 on wrong usage and 130 when interrupted.
`--debug` before the command shows where an error comes from.
"""


def pages() -> dict[Path, str]:
    """Return the pages as the code has them."""
    before, _, rest = SETTINGS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        COMMANDS: "\n".join([INTRODUCTION, *sections(typer.main.get_command(app), "conpet")]),
        SETTINGS: f"{before}{BEGIN}{settings_table()}{END}{after}",
    }


def settings_table() -> str:
    """Return the table of all settings."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for row in describe_settings():
        owner = f" ({', '.join(f'`{name}`' for name in row.component.split(', '))})" if row.component else ""
        task = " Also per task." if row.per_task else ""
        lines.append(f"| `{row.name}`{owner} | `{row.default}` | {cell(row.meaning)}{task} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, page in pages().items():
        if not check:
            path.write_text(page, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != page:
            sys.stderr.write(f"{path.name} is stale: run python scripts/make_reference.py\n")
            return 1
    return 0


def sections(command: Any, name: str) -> Iterator[str]:
    """Yield the sections of a command and of those below it."""
    commands = getattr(command, "commands", {})
    if not commands:
        yield from section(command, name)
    for below, one in commands.items():
        yield from sections(one, f"{name} {below}")


def section(command: Any, name: str) -> Iterator[str]:
    """Yield the lines of one command: what it does, then a table of its arguments and options."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not {"--help"} & {*one.opts}]
    yield f"## {name}\n"
    usage = [name, *map(placeholder, arguments), *(["[OPTIONS]"] if options else [])]
    yield f"```sh\n{' '.join(usage)}\n```\n"
    yield "\n".join(line.strip() for line in (command.help or "").strip().splitlines()) + "\n"
    if arguments or options:
        yield "| | default | meaning |\n|---|---|---|"
        for one in [*arguments, *options]:
            yield f"| {named(one)} | {default(one)} | {cell(one.help or '')} |"
        yield ""


def placeholder(argument: Any) -> str:
    """Return how an argument is shown in the usage line."""
    name = str(argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def named(one: Any) -> str:
    """Return the names of an argument or option, with a placeholder of its value."""
    if one.param_type_name == "argument":
        return f"`{placeholder(one).strip('[]')}`"
    value = "" if one.is_flag else f" {one.metavar or kind(one)}"
    return ", ".join(f"`{cell(option + value)}`" for option in sorted(one.opts, key=len, reverse=True))


def kind(option: Any) -> str:
    """Return the placeholder of an option's value where it names none."""
    named = str(getattr(option.type_descriptor.annotation, "__name__", ""))
    return {"int": "N", "float": "NUMBER", "Path": "PATH"}.get(named, "TEXT")


def default(one: Any) -> str:
    """Return the default as people read it."""
    if one.required:
        return "required"
    shown = one.show_default if isinstance(one.show_default, str) else one.default
    if shown is None or shown in (False, (), []) or callable(shown):
        return ""
    return cell(str(shown)) if isinstance(one.show_default, str) else f"`{shown}`"


def cell(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
