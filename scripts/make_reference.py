"""Generate the reference of commands and settings from the code.

python scripts/make_reference.py [--check]     # --check: fail if a page is out of date
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

<!-- Made by `python scripts/make_reference.py` from the commands' help texts. -->

`conpet COMMAND --help` prints the same in the terminal. Commands print results to standard output and everything
else to standard error. Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted;
3 an alarm of `conpet watch`.
`--debug` before the command shows the traceback of an error.
"""


def pages() -> dict[Path, str]:
    """Return the pages for the present code."""
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
        task = " Can be set per task." if row.per_task else ""
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
    """Yield the sections of a command and its subcommands."""
    commands = getattr(command, "commands", {})
    if not commands:
        yield from section(command, name)
    for subname, subcommand in commands.items():
        yield from sections(subcommand, f"{name} {subname}")


def section(command: Any, name: str) -> Iterator[str]:
    """Yield the lines of a command: its help, then a table of its arguments and options."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [
        param for param in command.params if param.param_type_name == "option" and not {"--help"} & {*param.opts}
    ]
    yield f"## {name}\n"
    usage = [name, *map(placeholder, arguments), *(["[OPTIONS]"] if options else [])]
    yield f"```sh\n{' '.join(usage)}\n```\n"
    yield "\n".join(line.strip() for line in (command.help or "").strip().splitlines()) + "\n"
    if arguments or options:
        yield "| | default | meaning |\n|---|---|---|"
        for param in [*arguments, *options]:
            yield f"| {names_of(param)} | {default(param)} | {cell(param.help or '')} |"
        yield ""


def placeholder(argument: Any) -> str:
    """Return the placeholder of an argument in the usage line."""
    name = str(argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def names_of(param: Any) -> str:
    """Return the names of an argument or option, with a placeholder for its value."""
    if param.param_type_name == "argument":
        return f"`{placeholder(param).strip('[]')}`"
    value = "" if param.is_flag else f" {param.metavar}"
    return ", ".join(f"`{cell(option + value)}`" for option in sorted(param.opts, key=len, reverse=True))


def default(param: Any) -> str:
    """Return the default value for readers."""
    if param.required:
        return "required"
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    if shown is None or shown in (False, (), []) or callable(shown):
        return ""
    return cell(str(shown)) if isinstance(param.show_default, str) else f"`{shown}`"


def cell(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
