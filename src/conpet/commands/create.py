"""The checks of a new workspace that need no backbone; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from conpet.backbone.depth import check_frozen_layers, known_layers
from conpet.backbone.location import full_name
from conpet.config import Settings
from conpet.store import Store


def new_settings(path: str | os.PathLike[str], settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return the settings of a new workspace.

    Args:
        path: The workspace's folder.
        settings: Settings to start from.
        changes: Changes to them, nested or by dotted keys.

    Raises:
        ConfigError: A setting is unknown or wrong.
        UnknownNameError: There is no such method, selector, replay schedule or retention.
        BackboneError: The backbone has fewer layers.
        WorkspaceExistsError: `path` exists and is not an empty folder.
    """
    requested = settings.changed(changes)
    requested = requested.changed({"backbone.name": full_name(requested.backbone.name)})
    name, frozen_layers = requested.backbone.name, requested.backbone.frozen_layers
    if frozen_layers is not None and (layers := known_layers(name)) is not None:
        check_frozen_layers(name, layers, frozen_layers)
    Store.require_free(path)
    return requested
