"""Read YAML files in which a key that is there twice is an error."""

from __future__ import annotations

from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        yaml.YAMLError: It is not YAML, or a key is there twice, of which YAML silently keeps the last.
    """
    return yaml.load(text, _UniqueKeys)  # noqa: S506 - it is a safe loader


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping as a dictionary; merged keys (`<<`) may be overridden."""
        own: list[Any] = []
        for key, _ in node.value:
            if key.value in own:
                problem = f"the key {key.value!r} occurs twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge":
                own.append(key.value)
        return super().construct_mapping(node, deep)
