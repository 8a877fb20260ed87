"""Groups of labels that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from conpet.data.labelled import Grouping
from conpet.errors import DataError


def numbered(groups: Sequence[Sequence[str]]) -> Grouping:
    """Name groups by their places: task-01, task-02 and so on, of equal width."""
    width = len(str(len(groups)))
    return {f"task-{number:0{width}d}": tuple(labels) for number, labels in enumerate(groups, start=1)}


def read_groups(path: Path) -> Grouping:
    """Read groups of labels from a YAML or JSON file: a list of lists of labels, or task names to lists of labels.

    Raises:
        DataError: It cannot be read, or is not such a file.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"the groups of labels cannot be read from {path}: {error.strerror}; name a YAML or JSON file"
        ) from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    groups = {_text(path, name): labels for name, labels in found.items()} if isinstance(found, Mapping) else found
    if not isinstance(groups, (Mapping, list)) or not groups:
        raise DataError(f"{path}: give a list of lists of labels, or task names with lists of labels")
    if isinstance(groups, list):
        return numbered([_labels(path, f"group {number}", one) for number, one in enumerate(groups, start=1)])
    return {name: _labels(path, name, labels) for name, labels in groups.items()}


def _labels(path: Path, group: str, found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise DataError(f"{path}: {group} must be a list of labels, not {found!r:.40}")
    return tuple(_text(path, one) for one in found)


def _text(path: Path, found: Any) -> str:
    """Return a name as text: YAML takes an unquoted 12 for a number, as the readers of examples do."""
    if isinstance(found, str):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    raise DataError(f"{path}: names are text, not {found!r:.40}; put it in quotes")
