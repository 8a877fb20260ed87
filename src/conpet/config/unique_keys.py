"""Read YAML files in which a key that is there twice is an error."""

from __future__ import annotations

from typing import Any

import yaml


class UniqueKeys(yaml.SafeLoader):
    """A loader that refuses duplicate keys, of which YAML silently keeps the last."""

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
