"""Groups of labels defined by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from conpet.config.unique_keys import load_yaml
from conpet.data.labelled import Grouping
from conpet.errors import DataError


def numbered(groups: Sequence[Sequence[str]]) -> Grouping:
    """Name groups by position: task-01, task-02 and so on, with equal width."""
    width = len(str(len(groups)))
    return {f"task-{number:0{width}d}": tuple(labels) for number, labels in enumerate(groups, start=1)}


def read_groups(path: Path) -> Grouping:
    """Read groups of labels from a YAML or JSON file: a list of lists of labels, or a mapping from task names to lists.

    Raises:
        DataError: The file cannot be read or has other content.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"the groups of labels cannot be read from {path}: {error.strerror}; name a YAML or JSON file"
        ) from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    groups = (
        {_text(path, name): labels for name, labels in content.items()} if isinstance(content, Mapping) else content
    )
    if not isinstance(groups, (Mapping, list)) or not groups:
        raise DataError(f"{path}: give a list of lists of labels, or task names with lists of labels")
    if isinstance(groups, list):
        return numbered([_labels(path, f"group {number}", labels) for number, labels in enumerate(groups, start=1)])
    return {name: _labels(path, name, labels) for name, labels in groups.items()}


def _labels(path: Path, group: str, labels: Any) -> tuple[str, ...]:
    if not isinstance(labels, list):
        raise DataError(f"{path}: {group} must be a list of labels, not {labels!r:.40}")
    return tuple(_text(path, label) for label in labels)


def _text(path: Path, name: Any) -> str:
    """Return a name as text; a whole number is accepted, because YAML reads an unquoted 12 as a number."""
    if isinstance(name, str):
        return name
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    raise DataError(f"{path}: a name must be text, not {name!r:.40}; put it in quotes")
